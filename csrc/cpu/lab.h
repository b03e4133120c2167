// Rows of pixels in CIE Lab, for the operators that need them.
#pragma once

#include <cstdint>
#include <vector>

#include "cpu/pixels.h"

namespace fastssl {

// One row in linear light, a channel after the other.
struct LinearRow {
  explicit LinearRow(int64_t size) : red(size), green(size), blue(size) {}

  // Reads one pixel of `every`, from the first.
  void read(const Row& row, int64_t every);

  std::vector<float> red, green, blue;
};

// L, a and b of a row in linear light; rounded as if stored in 8 bits where `eight_bit`.
void convert_row(const float* red, const float* green, const float* blue, int64_t num,
                 bool eight_bit, float* lightness, float* a, float* b);

}  // namespace fastssl
