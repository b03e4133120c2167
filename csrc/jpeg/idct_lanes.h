// What the inverse DCT and its reduced sizes have in common: libjpeg's "islow" fixed point.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#if defined(__x86_64__) && defined(__GNUC__)
#define FASTSSL_AVX2 1
#define FASTSSL_TARGET __attribute__((target("avx2")))
#include <immintrin.h>
#endif

namespace fastssl::jpeg {

// Factors are in units of 2^-kBits; two extra bits are kept between the passes, and three make up
// for the length of the transform.
constexpr int kBits = 13;
constexpr int kExtraBits = 2;
constexpr int kShiftColumns = kBits - kExtraBits;
constexpr int kShiftRows = kBits + kExtraBits + 3;

inline uint8_t to_sample(int32_t value) {
  return static_cast<uint8_t>(std::min(255, std::max(0, value + 128)));
}

inline int32_t saturate(int32_t value) { return std::min(32767, std::max(-32768, value)); }

inline int32_t wrap(int32_t value) { return static_cast<int16_t>(value); }

// a * x + b * y modulo 2^32, as vector units have it.
inline uint32_t rotate_plain(int32_t a, int32_t x, int32_t b, int32_t y) {
  return static_cast<uint32_t>(a) * static_cast<uint32_t>(x) +
         static_cast<uint32_t>(b) * static_cast<uint32_t>(y);
}

#ifdef FASTSSL_AVX2

// Rows of two blocks of 16 bits, one in each half of a register.

// Sixteen values of 32 bits: the first and the last four of each half.
struct Wide {
  __m256i low, high;
};

FASTSSL_TARGET inline Wide add(Wide x, Wide y) {
  return {_mm256_add_epi32(x.low, y.low), _mm256_add_epi32(x.high, y.high)};
}

FASTSSL_TARGET inline Wide subtract(Wide x, Wide y) {
  return {_mm256_sub_epi32(x.low, y.low), _mm256_sub_epi32(x.high, y.high)};
}

FASTSSL_TARGET inline Wide pair(__m256i x, __m256i y) {
  return {_mm256_unpacklo_epi16(x, y), _mm256_unpackhi_epi16(x, y)};
}

// x * a + y * b of pairs (x, y).
FASTSSL_TARGET inline Wide rotate(Wide pairs, int a, int b) {
  const __m256i both = _mm256_set1_epi32(static_cast<int32_t>(
      static_cast<uint32_t>(static_cast<uint16_t>(b)) << 16 | static_cast<uint16_t>(a)));
  return {_mm256_madd_epi16(pairs.low, both), _mm256_madd_epi16(pairs.high, both)};
}

// x * 2^kUp.
template <int kUp>
FASTSSL_TARGET inline Wide scale(__m256i x) {
  const Wide pairs = pair(_mm256_setzero_si256(), x);
  return {_mm256_srai_epi32(pairs.low, 16 - kUp), _mm256_srai_epi32(pairs.high, 16 - kUp)};
}

template <int kShift>
FASTSSL_TARGET inline __m256i shift_down(Wide x) {
  return _mm256_packs_epi32(_mm256_srai_epi32(x.low, kShift), _mm256_srai_epi32(x.high, kShift));
}

// sum + odd and sum - odd, shifted.
template <int kShift>
FASTSSL_TARGET inline void add_sub(Wide sum, Wide odd, __m256i* first, __m256i* last) {
  const __m256i half = _mm256_set1_epi32(1 << (kShift - 1));
  const Wide rounded = add(sum, {half, half});
  *first = shift_down<kShift>(add(rounded, odd));
  *last = shift_down<kShift>(subtract(rounded, odd));
}

// The same row of two blocks.
FASTSSL_TARGET inline __m256i load_two(const int16_t* a, const int16_t* b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)a)),
                                 _mm_loadu_si128((const __m128i*)b), 1);
}

FASTSSL_TARGET inline __m256i dequantise(__m256i row, const uint16_t* steps) {
  return _mm256_mullo_epi16(row,
                            _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)steps)));
}

// Where columns have nothing but their first coefficient, libjpeg-turbo's first pass only shifts
// it, and unlike the other without saturation. Puts that in place of what the pass gave for such
// blocks.
//
// below: everything under the first row, or-ed.
template <int kRows>
FASTSSL_TARGET inline void keep_flat(__m256i below, __m256i first, __m256i* rows) {
  const __m128i below_a = _mm256_castsi256_si128(below);
  const __m128i below_b = _mm256_extracti128_si256(below, 1);
  const bool is_flat_a = _mm_testz_si128(below_a, below_a);
  const bool is_flat_b = _mm_testz_si128(below_b, below_b);
  if (!is_flat_a && !is_flat_b) {
    return;
  }
  const __m256i shifted = _mm256_slli_epi16(first, kExtraBits);
  const __m256i is_flat =
      _mm256_set_m128i(_mm_set1_epi8(is_flat_b ? -1 : 0), _mm_set1_epi8(is_flat_a ? -1 : 0));
  for (int y = 0; y < kRows; ++y) {
    rows[y] = _mm256_blendv_epi8(rows[y], shifted, is_flat);
  }
}

#endif

}  // namespace fastssl::jpeg
