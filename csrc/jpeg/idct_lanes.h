// What the inverse DCT and its reduced sizes have in common: libjpeg's "islow" fixed point, and the
// transform itself for rows of two blocks in a register, or of four where FASTSSL_FOUR_BLOCKS is
// defined before. A file includes it once.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "jpeg/intrinsics.h"

#ifdef FASTSSL_FOUR_BLOCKS
#define FASTSSL_TARGET FASTSSL_TARGET_AVX512
#define FASTSSL_V(name) _mm512_##name
#else
#define FASTSSL_TARGET FASTSSL_TARGET_AVX2
#define FASTSSL_V(name) _mm256_##name
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

// Rotations (a, b) -> a * x + b * y in units of 2^-13; the numbers are cosines and their sums.
constexpr int kEven0 = 4433;          // 0.541196100
constexpr int kEven2 = 4433 + 6270;   // + 0.765366865
constexpr int kEven6 = 4433 - 15137;  // - 1.847759065
constexpr int kOdd = 9633;            // 1.175875602
constexpr int kOddZ3 = 9633 - 16069;  // - 1.961570560
constexpr int kOddZ4 = 9633 - 3196;   // - 0.390180644
constexpr int kOdd7 = 2446 - 7373;    // 0.298631336 - 0.899976223
constexpr int kOdd71 = -7373;
constexpr int kOdd1 = 12299 - 7373;   // 1.501321110 - 0.899976223
constexpr int kOdd5 = 16819 - 20995;  // 2.053119869 - 2.562915447
constexpr int kOdd53 = -20995;
constexpr int kOdd3 = 25172 - 20995;  // 3.072711026 - 2.562915447

#ifdef FASTSSL_AVX2

// A register holds the same row of each block, eight values of 16 bits.
#ifdef FASTSSL_FOUR_BLOCKS
inline namespace four_blocks {

using Lanes = __m512i;
FASTSSL_TARGET inline Lanes zeros() { return _mm512_setzero_si512(); }
FASTSSL_TARGET inline Lanes repeat(__m128i x) { return _mm512_broadcast_i32x4(x); }

#else
inline namespace two_blocks {

using Lanes = __m256i;
FASTSSL_TARGET inline Lanes zeros() { return _mm256_setzero_si256(); }
FASTSSL_TARGET inline Lanes repeat(__m128i x) { return _mm256_broadcastsi128_si256(x); }

// The same row of two blocks.
FASTSSL_TARGET inline Lanes load_two(const int16_t* a, const int16_t* b) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)a)),
                                 _mm_loadu_si128((const __m128i*)b), 1);
}

#endif

FASTSSL_TARGET inline Lanes dequantise(Lanes row, const uint16_t* steps) {
  return FASTSSL_V(mullo_epi16)(row, repeat(_mm_loadu_si128((const __m128i*)steps)));
}

// The values of a row in 32 bits: the first and the last four of each block.
struct Wide {
  Lanes low, high;
};

FASTSSL_TARGET inline Wide add(Wide x, Wide y) {
  return {FASTSSL_V(add_epi32)(x.low, y.low), FASTSSL_V(add_epi32)(x.high, y.high)};
}

FASTSSL_TARGET inline Wide subtract(Wide x, Wide y) {
  return {FASTSSL_V(sub_epi32)(x.low, y.low), FASTSSL_V(sub_epi32)(x.high, y.high)};
}

FASTSSL_TARGET inline Wide pair(Lanes x, Lanes y) {
  return {FASTSSL_V(unpacklo_epi16)(x, y), FASTSSL_V(unpackhi_epi16)(x, y)};
}

// x * a + y * b of pairs (x, y).
FASTSSL_TARGET inline Wide rotate(Wide pairs, int a, int b) {
  const Lanes both = FASTSSL_V(set1_epi32)(static_cast<int32_t>(
      static_cast<uint32_t>(static_cast<uint16_t>(b)) << 16 | static_cast<uint16_t>(a)));
  return {FASTSSL_V(madd_epi16)(pairs.low, both), FASTSSL_V(madd_epi16)(pairs.high, both)};
}

// x * 2^kUp.
template <int kUp>
FASTSSL_TARGET inline Wide scale(Lanes x) {
  const Wide pairs = pair(zeros(), x);
  return {FASTSSL_V(srai_epi32)(pairs.low, 16 - kUp), FASTSSL_V(srai_epi32)(pairs.high, 16 - kUp)};
}

template <int kShift>
FASTSSL_TARGET inline Lanes shift_down(Wide x) {
  return FASTSSL_V(packs_epi32)(FASTSSL_V(srai_epi32)(x.low, kShift),
                                FASTSSL_V(srai_epi32)(x.high, kShift));
}

// sum + odd and sum - odd, shifted.
template <int kShift>
FASTSSL_TARGET inline void add_sub(Wide sum, Wide odd, Lanes* first, Lanes* last) {
  const Lanes half = FASTSSL_V(set1_epi32)(1 << (kShift - 1));
  const Wide rounded = add(sum, {half, half});
  *first = shift_down<kShift>(add(rounded, odd));
  *last = shift_down<kShift>(subtract(rounded, odd));
}

// The transform of all columns; rows in, rows out.
template <int kShift>
FASTSSL_TARGET inline void transform(Lanes* rows) {
  const Wide z26 = pair(rows[2], rows[6]);
  const Wide even2 = rotate(z26, kEven0, kEven6);
  const Wide even3 = rotate(z26, kEven2, kEven0);
  const Wide even0 = scale<kBits>(FASTSSL_V(add_epi16)(rows[0], rows[4]));
  const Wide even1 = scale<kBits>(FASTSSL_V(sub_epi16)(rows[0], rows[4]));
  const Wide z34 =
      pair(FASTSSL_V(add_epi16)(rows[7], rows[3]), FASTSSL_V(add_epi16)(rows[5], rows[1]));
  const Wide z3 = rotate(z34, kOddZ3, kOdd);
  const Wide z4 = rotate(z34, kOdd, kOddZ4);
  const Wide i71 = pair(rows[7], rows[1]);
  const Wide i53 = pair(rows[5], rows[3]);
  add_sub<kShift>(add(even0, even3), add(rotate(i71, kOdd71, kOdd1), z4), &rows[0], &rows[7]);
  add_sub<kShift>(add(even1, even2), add(rotate(i53, kOdd53, kOdd3), z3), &rows[1], &rows[6]);
  add_sub<kShift>(subtract(even1, even2), add(rotate(i53, kOdd5, kOdd53), z4), &rows[2], &rows[5]);
  add_sub<kShift>(subtract(even0, even3), add(rotate(i71, kOdd7, kOdd71), z3), &rows[3], &rows[4]);
}

FASTSSL_TARGET inline void transpose(Lanes* r) {
  const Lanes a0 = FASTSSL_V(unpacklo_epi16)(r[0], r[1]),
              a1 = FASTSSL_V(unpackhi_epi16)(r[0], r[1]);
  const Lanes a2 = FASTSSL_V(unpacklo_epi16)(r[2], r[3]),
              a3 = FASTSSL_V(unpackhi_epi16)(r[2], r[3]);
  const Lanes a4 = FASTSSL_V(unpacklo_epi16)(r[4], r[5]),
              a5 = FASTSSL_V(unpackhi_epi16)(r[4], r[5]);
  const Lanes a6 = FASTSSL_V(unpacklo_epi16)(r[6], r[7]),
              a7 = FASTSSL_V(unpackhi_epi16)(r[6], r[7]);
  const Lanes b0 = FASTSSL_V(unpacklo_epi32)(a0, a2), b1 = FASTSSL_V(unpackhi_epi32)(a0, a2);
  const Lanes b2 = FASTSSL_V(unpacklo_epi32)(a1, a3), b3 = FASTSSL_V(unpackhi_epi32)(a1, a3);
  const Lanes b4 = FASTSSL_V(unpacklo_epi32)(a4, a6), b5 = FASTSSL_V(unpackhi_epi32)(a4, a6);
  const Lanes b6 = FASTSSL_V(unpacklo_epi32)(a5, a7), b7 = FASTSSL_V(unpackhi_epi32)(a5, a7);
  r[0] = FASTSSL_V(unpacklo_epi64)(b0, b4);
  r[1] = FASTSSL_V(unpackhi_epi64)(b0, b4);
  r[2] = FASTSSL_V(unpacklo_epi64)(b1, b5);
  r[3] = FASTSSL_V(unpackhi_epi64)(b1, b5);
  r[4] = FASTSSL_V(unpacklo_epi64)(b2, b6);
  r[5] = FASTSSL_V(unpackhi_epi64)(b2, b6);
  r[6] = FASTSSL_V(unpacklo_epi64)(b3, b7);
  r[7] = FASTSSL_V(unpackhi_epi64)(b3, b7);
}

#ifndef FASTSSL_FOUR_BLOCKS

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

}  // namespace

#endif

}  // namespace fastssl::jpeg
