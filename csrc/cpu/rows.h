// From a row of three planes to where it stands in a view.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace fastssl {

// Writes red, green and blue of each pixel next to each other.
void interleave(const float* red, const float* green, const float* blue, int64_t num, float* out);

// Casts row `y` of a view, R then G then B of `width` numbers each, and writes it into the view at
// `out`: interleaved where `channels_last`, else in three planes.
template <typename Out>
void write_row(const float* rows, int64_t height, int64_t width, int64_t y, bool channels_last,
               Out* out) {
  if (!channels_last) {
    for (int64_t channel = 0; channel < 3; ++channel) {
      std::copy_n(rows + channel * width, width, out + (channel * height + y) * width);
    }
    return;
  }
  Out* place = out + 3 * y * width;
  if constexpr (std::is_same_v<Out, float>) {
    interleave(rows, rows + width, rows + 2 * width, width, place);
  } else {
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t channel = 0; channel < 3; ++channel) {
        place[3 * x + channel] = static_cast<Out>(rows[channel * width + x]);
      }
    }
  }
}

}  // namespace fastssl
