#include "jpeg/geometry.h"

namespace fastssl::jpeg {

Window find_window(const Rect& box, int32_t factor, int32_t orientation) {
  const Rect covering = cover(box, factor);
  const double unit = 1.0 / factor;  // A power of two: nothing here is rounded.
  const double left = mirrors_columns(orientation) ? covering.right - box.right * unit
                                                   : box.left * unit - covering.left;
  const double top = mirrors_rows(orientation) ? covering.bottom - box.bottom * unit
                                               : box.top * unit - covering.top;
  const double width = box.width() * unit, height = box.height() * unit;
  if (is_transposed(orientation)) {
    return {top, left, height, width};
  }
  return {left, top, width, height};
}

void turn_upright(const Pixels& crop, int32_t orientation, uint8_t* out) {
  const bool swaps = is_transposed(orientation);
  const bool mirrors_x = mirrors_columns(orientation), mirrors_y = mirrors_rows(orientation);
  const ptrdiff_t stored_x = mirrors_x ? -3 : 3;
  const ptrdiff_t stored_y = mirrors_y ? -crop.stride : crop.stride;
  const ptrdiff_t step_x = swaps ? stored_y : stored_x;
  const ptrdiff_t step_y = swaps ? stored_x : stored_y;
  const int32_t width = swaps ? crop.height : crop.width;
  const int32_t height = swaps ? crop.width : crop.height;
  const uint8_t* row = crop.data + (mirrors_x ? ptrdiff_t{3} * (crop.width - 1) : 0) +
                       (mirrors_y ? crop.stride * (crop.height - 1) : 0);
  for (int32_t y = 0; y < height; ++y, row += step_y) {
    const uint8_t* pixel = row;
    for (int32_t x = 0; x < width; ++x, pixel += step_x, out += 3) {
      out[0] = pixel[0];
      out[1] = pixel[1];
      out[2] = pixel[2];
    }
  }
}

}  // namespace fastssl::jpeg
