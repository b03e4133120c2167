// The two passes of a resampling: of the columns of every row, and of the rows.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jpeg/resample.h"
#include "jpeg/simd.h"

namespace fastssl::jpeg {

// Weights are whole numbers of 2^-kPrecision, in parts of which the lower has kLowBits.
constexpr int kPrecision = 32 - 8 - 2;
constexpr int kLowBits = 15;
constexpr int32_t kLowMask = (1 << kLowBits) - 1;

// Resamples the columns of every row.
//
// out, stride: as many rows as there are, this many bytes apart.
void resample_columns(const Pixels& in, const Taps& taps, Simd simd, uint8_t* out,
                      ptrdiff_t stride);

// Resamples the rows; otherwise as above.
void resample_rows(const Pixels& in, const Taps& taps, Simd simd, uint8_t* out, ptrdiff_t stride);

}  // namespace fastssl::jpeg
