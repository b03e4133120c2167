// The transform is that of Loeffler, Ligtenberg and Moschytz (ICASSP 1989) in 13-bit fixed point,
// columns first, two extra bits between the passes. Its rotations are written as sums of two
// products, which is one vector instruction; no product is rounded before the sums, so this order
// gives the same bits as any other. Coefficients that no encoder writes overflow here as they do in
// libjpeg-turbo's vector code, so that two decoders never differ.
#include "jpeg/idct.h"

#include <cstring>

#include "jpeg/idct_four.h"
#include "jpeg/idct_lanes.h"

namespace fastssl::jpeg {
namespace {

// A block of nothing but DC is flat.
uint8_t flat_sample(int32_t dc) {
  const auto between = static_cast<int16_t>(dc * (1 << kExtraBits));
  return to_sample((between + (1 << (kExtraBits + 2))) >> (kExtraBits + 3));
}

void fill_flat(const int16_t* block, const uint16_t* steps, uint8_t* out, ptrdiff_t stride) {
  const uint8_t sample = flat_sample(block[0] * steps[0]);
  for (int y = 0; y < 8; ++y) {
    std::memset(out + y * stride, sample, 8);
  }
}

// One line of eight, `step` apart.
void transform_line(const int32_t* in, int step, int shift, int32_t* out) {
  const int32_t z2 = in[2 * step], z6 = in[6 * step];
  const uint32_t even2 = rotate_plain(z2, kEven0, z6, kEven6);
  const uint32_t even3 = rotate_plain(z2, kEven2, z6, kEven0);
  const uint32_t even0 = rotate_plain(wrap(in[0] + in[4 * step]), 1 << kBits, 0, 0);
  const uint32_t even1 = rotate_plain(wrap(in[0] - in[4 * step]), 1 << kBits, 0, 0);
  const uint32_t sums[4] = {even0 + even3, even1 + even2, even1 - even2, even0 - even3};
  const int32_t i1 = in[step], i3 = in[3 * step], i5 = in[5 * step], i7 = in[7 * step];
  const int32_t z73 = wrap(i7 + i3), z51 = wrap(i5 + i1);
  const uint32_t z3 = rotate_plain(z73, kOddZ3, z51, kOdd);
  const uint32_t z4 = rotate_plain(z73, kOdd, z51, kOddZ4);
  const uint32_t odd[4] = {
      rotate_plain(i7, kOdd71, i1, kOdd1) + z4, rotate_plain(i5, kOdd53, i3, kOdd3) + z3,
      rotate_plain(i5, kOdd5, i3, kOdd53) + z4, rotate_plain(i7, kOdd7, i1, kOdd71) + z3};
  const uint32_t half = 1u << (shift - 1);
  for (int i = 0; i < 4; ++i) {
    out[i * step] = static_cast<int32_t>(sums[i] + odd[i] + half) >> shift;
    out[(7 - i) * step] = static_cast<int32_t>(sums[i] - odd[i] + half) >> shift;
  }
}

void inverse_plain(const int16_t* block, const uint16_t* steps, int32_t num, uint8_t* out,
                   ptrdiff_t stride) {
  if (num == 1) {
    fill_flat(block, steps, out, stride);
    return;
  }
  int32_t values[64];
  bool is_one_row = true;
  for (int i = 0; i < 64; ++i) {
    values[i] = wrap(block[i] * steps[i]);
    is_one_row = is_one_row && (i < 8 || block[i] == 0);
  }
  for (int x = 0; x < 8; ++x) {
    if (is_one_row) {
      values[x] = wrap(values[x] * (1 << kExtraBits));
      for (int y = 1; y < 8; ++y) {
        values[8 * y + x] = values[x];
      }
    } else {
      transform_line(values + x, 8, kShiftColumns, values + x);
    }
  }
  for (int32_t& value : values) {
    value = saturate(value);
  }
  for (int y = 0; y < 8; ++y) {
    transform_line(values + 8 * y, 1, kShiftRows, values + 8 * y);
    for (int x = 0; x < 8; ++x) {
      out[y * stride + x] = to_sample(values[8 * y + x]);
    }
  }
}

void inverse_two_plain(const int16_t* a, const int16_t* b, const uint16_t* steps, uint8_t* out_a,
                       uint8_t* out_b, ptrdiff_t stride) {
  inverse_plain(a, steps, 64, out_a, stride);
  inverse_plain(b, steps, 64, out_b, stride);
}

#ifdef FASTSSL_AVX2

// Stores two rows of eight samples.
FASTSSL_TARGET inline void store_rows(__m128i rows, uint8_t* out, ptrdiff_t stride) {
  _mm_storel_epi64((__m128i*)out, rows);
  _mm_storeh_pd((double*)(out + stride), _mm_castsi128_pd(rows));
}

FASTSSL_TARGET void inverse_two_avx2(const int16_t* a, const int16_t* b, const uint16_t* steps,
                                     uint8_t* out_a, uint8_t* out_b, ptrdiff_t stride) {
  __m256i rows[8];
  __m256i below = _mm256_setzero_si256();
  for (int y = 0; y < 8; ++y) {
    const __m256i row = load_two(a + 8 * y, b + 8 * y);
    below = y > 0 ? _mm256_or_si256(below, row) : below;
    rows[y] = dequantise(row, steps + 8 * y);
  }
  const __m256i first = rows[0];
  transform<kShiftColumns>(rows);
  keep_flat<8>(below, first, rows);
  transpose(rows);
  transform<kShiftRows>(rows);
  transpose(rows);
  const __m256i middle = _mm256_set1_epi8(static_cast<char>(128));
  for (int y = 0; y < 8; y += 2) {
    const __m256i bytes = _mm256_xor_si256(_mm256_packs_epi16(rows[y], rows[y + 1]), middle);
    store_rows(_mm256_castsi256_si128(bytes), out_a + y * stride, stride);
    store_rows(_mm256_extracti128_si256(bytes, 1), out_b + y * stride, stride);
  }
}

FASTSSL_TARGET void inverse_avx2(const int16_t* block, const uint16_t* steps, int32_t num,
                                 uint8_t* out, ptrdiff_t stride) {
  if (num == 1) {
    fill_flat(block, steps, out, stride);
    return;
  }
  // Both halves hold the same block, and write the same samples.
  inverse_two_avx2(block, block, steps, out, out, stride);
}

#endif

}  // namespace

InverseDct pick_inverse_dct(Simd simd) {
#ifdef FASTSSL_AVX2
  if (simd >= Simd::avx2) {
    return {inverse_avx2, inverse_two_avx2, simd == Simd::avx512 ? inverse_four : nullptr};
  }
#else
  (void)simd;
#endif
  return {inverse_plain, inverse_two_plain, nullptr};
}

}  // namespace fastssl::jpeg
