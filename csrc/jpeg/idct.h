// From coefficients to samples: libjpeg's "islow" inverse DCT, to the bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jpeg/simd.h"

namespace fastssl::jpeg {

// Turns blocks into 8 x 8 samples, or fewer.
//
// block: 64 quantised coefficients in natural order.
// steps: 64 quantisation steps likewise.
// out, stride: the first sample, and from one row to the next.
struct InverseDct {
  // num: how many coefficients of the zigzag may differ from 0; 1 means DC alone.
  void (*one)(const int16_t* block, const uint16_t* steps, int32_t num, uint8_t* out,
              ptrdiff_t stride);
  // Two blocks of a component at once.
  void (*two)(const int16_t* a, const int16_t* b, const uint16_t* steps, uint8_t* out_a,
              uint8_t* out_b, ptrdiff_t stride);
  // Four; null where two fill a register.
  void (*four)(const int16_t* const* blocks, const uint16_t* steps, uint8_t* const* outs,
               ptrdiff_t stride);
};

// simd: what the machine has; the results are equal.
InverseDct pick_inverse_dct(Simd simd);

// The same for blocks of size x size samples, 4, 2 or 1. But for rounding each is the mean of those
// of the whole block that it stands for.
InverseDct pick_reduced_dct(int32_t size, Simd simd);

}  // namespace fastssl::jpeg
