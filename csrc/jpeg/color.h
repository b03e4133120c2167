// From planes of Y, Cb and Cr to RGB: libjpeg-turbo's "fancy" upsampling and colour conversion, to
// the bit.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jpeg/simd.h"

namespace fastssl::jpeg {

// How a component's samples become as many as the picture has.
enum class Upsampling {
  none,
  h2v1,  // Triangles: 3/4 of the nearer sample, 1/4 of the next.
  h1v2,
  h2v2,
  h4v1,  // Repeated.
  // In pictures of an eighth, whose samples have no neighbours in their block.
  h2v1_repeated,
  h1v2_repeated,
};

// Samples that vector code may read or write behind the end of a row.
constexpr int32_t kRowSlack = 64;

// Makes a row of twice or four times the samples, or blends two rows.
//
// near, far: the samples' own row and the one on the other side; far counts only for h1v2 and h2v2.
// One sample before the first and one behind the last must be there, kRowSlack readable.
// is_lower: whether the row made is the lower one of near's two.
// num: samples of near that are needed.
// out: 1, 2 or 4 times num, and kRowSlack more that are overwritten.
void upsample_row(Upsampling kind, const uint8_t* near, const uint8_t* far, bool is_lower,
                  int32_t num, Simd simd, uint8_t* out);

// Converts a row; kRowSlack must be readable behind the inputs, nothing is written behind 3 * num.
void convert_row(const uint8_t* y, const uint8_t* cb, const uint8_t* cr, int32_t num, Simd simd,
                 uint8_t* rgb);

// Repeats each sample three times.
void convert_grey_row(const uint8_t* y, int32_t num, uint8_t* rgb);

}  // namespace fastssl::jpeg
