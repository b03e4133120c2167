// What every kernel is told about its input: raw pointers and sizes, no ATen types.
#pragma once

#include <cstdint>

namespace fastssl {

// A batch of interleaved RGB images whose pixels are dense inside a row; strides in bytes.
struct Images {
  const uint8_t* data;
  int64_t num;
  int64_t height;
  int64_t width;
  int64_t image_stride;
  int64_t row_stride;
};

// What to cut; flags and order are null where not given.
struct Cut {
  const int32_t* corners;  // (B, P, 2), y then x
  const int64_t* order;    // (B, P)
  const bool* flip;        // (B,)
  const bool* grey;        // (B,) or (B, P)
  bool grey_by_patch;
  int64_t num_patches;
  int64_t size;
};

}  // namespace fastssl
