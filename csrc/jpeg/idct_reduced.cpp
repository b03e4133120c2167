// Blocks reduced to 4 x 4, 2 x 2 or 1 sample. The mean of outputs 2i and 2i + 1 of eight has the
// factor
//   sqrt(2) * cos(k pi / 16) * cos((2i + 1) k pi / 8)
// for frequency k, which is 0 for k = 4, and the mean of each half is 0 for every even k but DC. So
// seven or five rows and columns are enough. What is summed is 2 or 4 times the mean, and the
// shifts are longer by that. Equal to the bit to libjpeg-turbo's; coefficients that no encoder
// writes saturate between the passes.
#include <cstring>

#include "jpeg/idct.h"
#include "jpeg/idct_lanes.h"

namespace fastssl::jpeg {
namespace {

// Four means of two: 2 sqrt(2) cos(k pi / 16) cos((2i + 1) k pi / 8), by k and i.
constexpr int kFour2 = 15137;              // 1.847759065; for i = 1 and 2 the negative.
constexpr int kFour6 = -6270;              // 0.765366865
constexpr int kFour1[2] = {20995, 8697};   // 2.562915447, 1.061594337
constexpr int kFour3[2] = {7373, -17799};  // 0.899976223, 2.172734803
constexpr int kFour5[2] = {-4926, 11893};  // 0.601344887, 1.451774981
constexpr int kFour7[2] = {-4176, -1730};  // 0.509795579, 0.211164243
// Two means of four: sqrt(2) times the sum of cos((2j + 1) k pi / 16) for j < 4.
constexpr int kTwo1 = 29692;   // 3.624509785
constexpr int kTwo3 = -10426;  // 1.272758580
constexpr int kTwo5 = 6967;    // 0.850430095
constexpr int kTwo7 = -5906;   // 0.720959822

// The mean of a block, which is all that DC tells. Where that is no sample, libjpeg-turbo's table
// repeats itself: it has 1,024 entries.
void take_mean(const int16_t* block, const uint16_t* steps, int32_t, uint8_t* out, ptrdiff_t) {
  const int32_t mean = (block[0] * steps[0] + 4) >> 3;
  out[0] = to_sample(((mean + 512) & 1023) - 512);
}

void take_two_means(const int16_t* a, const int16_t* b, const uint16_t* steps, uint8_t* out_a,
                    uint8_t* out_b, ptrdiff_t stride) {
  take_mean(a, steps, 64, out_a, stride);
  take_mean(b, steps, 64, out_b, stride);
}

// Two or four means of a line of eight, `step` apart.
template <int kSize>
void reduce_line(const int32_t* in, int step, int shift, int32_t* out, int out_step) {
  constexpr int kHalf = kSize / 2;
  const int32_t i1 = in[step], i3 = in[3 * step], i5 = in[5 * step], i7 = in[7 * step];
  uint32_t even[kHalf], odd[kHalf];
  if (kSize == 2) {
    even[0] = static_cast<uint32_t>(in[0]) << (kBits + 2);
    odd[0] = rotate_plain(i1, kTwo1, i3, kTwo3) + rotate_plain(i5, kTwo5, i7, kTwo7);
  } else {
    for (int i = 0; i < kHalf; ++i) {
      const int sign = i == 0 ? 1 : -1;
      even[i] = rotate_plain(in[0], 1 << (kBits + 1), 0, 0) +
                rotate_plain(in[2 * step], sign * kFour2, in[6 * step], sign * kFour6);
      odd[i] =
          rotate_plain(i1, kFour1[i], i3, kFour3[i]) + rotate_plain(i5, kFour5[i], i7, kFour7[i]);
    }
  }
  const uint32_t half = 1u << (shift - 1);
  for (int i = 0; i < kHalf; ++i) {
    out[i * out_step] = static_cast<int32_t>(even[i] + odd[i] + half) >> shift;
    out[(kSize - 1 - i) * out_step] = static_cast<int32_t>(even[i] - odd[i] + half) >> shift;
  }
}

// Bits by which sums are larger than means.
template <int kSize>
constexpr int kMore = kSize == 4 ? 1 : 2;

// A block of nothing but DC.
template <int kSize>
void fill_flat(const int16_t* block, const uint16_t* steps, uint8_t* out, ptrdiff_t stride) {
  int32_t between = wrap(block[0] * steps[0]) * (1 << kExtraBits);
  between = kSize == 4 ? wrap(between) : between;
  constexpr int kShift = kShiftRows + kMore<kSize>;
  const uint32_t sum = static_cast<uint32_t>(between) << (kBits + kMore<kSize>);
  const uint8_t sample = to_sample(static_cast<int32_t>(sum + (1u << (kShift - 1))) >> kShift);
  for (int y = 0; y < kSize; ++y) {
    std::memset(out + y * stride, sample, kSize);
  }
}

template <int kSize>
void reduce_plain(const int16_t* block, const uint16_t* steps, int32_t num, uint8_t* out,
                  ptrdiff_t stride) {
  if (num == 1) {
    fill_flat<kSize>(block, steps, out, stride);
    return;
  }
  int32_t values[64], lines[8 * kSize], samples[kSize];
  bool is_one_row = true;
  for (int i = 0; i < 64; ++i) {
    values[i] = wrap(block[i] * steps[i]);
    is_one_row = is_one_row && (i < 8 || i / 8 == 4 || block[i] == 0);
  }
  for (int x = 0; x < 8; ++x) {
    reduce_line<kSize>(values + x, 8, kShiftColumns + kMore<kSize>, lines + x, 8);
    for (int y = 0; y < kSize; ++y) {
      int32_t* const value = &lines[8 * y + x];
      if (kSize == 4) {
        // Of columns of nothing but their first coefficient libjpeg-turbo shifts that.
        *value = is_one_row ? wrap(values[x] * (1 << kExtraBits)) : saturate(*value);
      } else {
        // It keeps the first column in 32 bits.
        *value = x == 0 ? *value : saturate(*value);
      }
    }
  }
  for (int y = 0; y < kSize; ++y) {
    reduce_line<kSize>(lines + 8 * y, 1, kShiftRows + kMore<kSize>, samples, 1);
    for (int x = 0; x < kSize; ++x) {
      out[y * stride + x] = to_sample(samples[x]);
    }
  }
}

template <int kSize>
void reduce_two_plain(const int16_t* a, const int16_t* b, const uint16_t* steps, uint8_t* out_a,
                      uint8_t* out_b, ptrdiff_t stride) {
  reduce_plain<kSize>(a, steps, 64, out_a, stride);
  reduce_plain<kSize>(b, steps, 64, out_b, stride);
}

#ifdef FASTSSL_AVX2

// x * a + y * b of pairs (x, y) of 16 bits.
FASTSSL_TARGET inline __m256i rotate_pairs(__m256i pairs, int a, int b) {
  return rotate({pairs, pairs}, a, b).low;
}

// (sum + odd) / 2^kShift in 32 bits.
template <int kShift>
FASTSSL_TARGET inline __m256i round_down(__m256i value) {
  return _mm256_srai_epi32(_mm256_add_epi32(value, _mm256_set1_epi32(1 << (kShift - 1))), kShift);
}

FASTSSL_TARGET void reduce_two_to_4_avx2(const int16_t* a, const int16_t* b, const uint16_t* steps,
                                         uint8_t* out_a, uint8_t* out_b, ptrdiff_t stride) {
  constexpr int kColumns = kShiftColumns + kMore<4>, kRows = kShiftRows + kMore<4>;
  __m256i in[8];
  __m256i below = _mm256_setzero_si256();
  for (const int y : {0, 1, 2, 3, 5, 6, 7}) {
    const __m256i row = load_two(a + 8 * y, b + 8 * y);
    below = y > 0 ? _mm256_or_si256(below, row) : below;
    in[y] = dequantise(row, steps + 8 * y);
  }
  const Wide even0 = scale<kBits + 1>(in[0]);
  const Wide even2 = rotate(pair(in[2], in[6]), kFour2, kFour6);
  const Wide i13 = pair(in[1], in[3]), i57 = pair(in[5], in[7]);
  const Wide odd0 = add(rotate(i13, kFour1[0], kFour3[0]), rotate(i57, kFour5[0], kFour7[0]));
  const Wide odd1 = add(rotate(i13, kFour1[1], kFour3[1]), rotate(i57, kFour5[1], kFour7[1]));
  __m256i r[4];
  add_sub<kColumns>(add(even0, even2), odd0, &r[0], &r[3]);
  add_sub<kColumns>(subtract(even0, even2), odd1, &r[1], &r[2]);
  keep_flat<4>(below, in[0], r);
  // Columns of four, two in each register.
  const __m256i a0 = _mm256_unpacklo_epi16(r[0], r[1]), a1 = _mm256_unpackhi_epi16(r[0], r[1]);
  const __m256i a2 = _mm256_unpacklo_epi16(r[2], r[3]), a3 = _mm256_unpackhi_epi16(r[2], r[3]);
  const __m256i c01 = _mm256_unpacklo_epi32(a0, a2), c23 = _mm256_unpackhi_epi32(a0, a2);
  const __m256i c45 = _mm256_unpacklo_epi32(a1, a3), c67 = _mm256_unpackhi_epi32(a1, a3);
  const __m256i sum =
      _mm256_srai_epi32(_mm256_unpacklo_epi16(_mm256_setzero_si256(), c01), 16 - (kBits + 1));
  const __m256i c26 = rotate_pairs(_mm256_unpacklo_epi16(c23, c67), kFour2, kFour6);
  const __m256i c13 = _mm256_unpackhi_epi16(c01, c23), c57 = _mm256_unpackhi_epi16(c45, c67);
  const __m256i outer = _mm256_add_epi32(rotate_pairs(c13, kFour1[0], kFour3[0]),
                                         rotate_pairs(c57, kFour5[0], kFour7[0]));
  const __m256i inner = _mm256_add_epi32(rotate_pairs(c13, kFour1[1], kFour3[1]),
                                         rotate_pairs(c57, kFour5[1], kFour7[1]));
  const __m256i sum0 = _mm256_add_epi32(sum, c26), sum1 = _mm256_sub_epi32(sum, c26);
  const __m256i x01 = _mm256_packs_epi32(round_down<kRows>(_mm256_add_epi32(sum0, outer)),
                                         round_down<kRows>(_mm256_add_epi32(sum1, inner)));
  const __m256i x23 = _mm256_packs_epi32(round_down<kRows>(_mm256_sub_epi32(sum1, inner)),
                                         round_down<kRows>(_mm256_sub_epi32(sum0, outer)));
  const __m256i by_rows = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  const __m256i bytes = _mm256_xor_si256(_mm256_shuffle_epi8(_mm256_packs_epi16(x01, x23), by_rows),
                                         _mm256_set1_epi8(static_cast<char>(128)));
  alignas(32) uint8_t samples[32];
  _mm256_store_si256((__m256i*)samples, bytes);
  for (int y = 0; y < 4; ++y) {
    std::memcpy(out_a + y * stride, samples + 4 * y, 4);
    std::memcpy(out_b + y * stride, samples + 16 + 4 * y, 4);
  }
}

FASTSSL_TARGET void reduce_two_to_2_avx2(const int16_t* a, const int16_t* b, const uint16_t* steps,
                                         uint8_t* out_a, uint8_t* out_b, ptrdiff_t stride) {
  constexpr int kColumns = kShiftColumns + kMore<2>, kRows = kShiftRows + kMore<2>;
  __m256i in[8];
  for (const int y : {0, 1, 3, 5, 7}) {
    in[y] = dequantise(load_two(a + 8 * y, b + 8 * y), steps + 8 * y);
  }
  const Wide sum = scale<kBits + 2>(in[0]);
  const Wide columns_odd =
      add(rotate(pair(in[1], in[3]), kTwo1, kTwo3), rotate(pair(in[5], in[7]), kTwo5, kTwo7));
  __m256i r0, r1;
  add_sub<kColumns>(sum, columns_odd, &r0, &r1);
  const __m256i odd_only =
      _mm256_broadcastsi128_si256(_mm_setr_epi16(0, kTwo1, 0, kTwo3, 0, kTwo5, 0, kTwo7));
  const __m256i halves =
      _mm256_hadd_epi32(_mm256_madd_epi16(r0, odd_only), _mm256_madd_epi16(r1, odd_only));
  const __m256i odd = _mm256_hadd_epi32(halves, halves);
  // The first column in 32 bits.
  const __m256i even = _mm256_slli_epi32(
      _mm256_unpacklo_epi32(round_down<kColumns>(_mm256_add_epi32(sum.low, columns_odd.low)),
                            round_down<kColumns>(_mm256_sub_epi32(sum.low, columns_odd.low))),
      kBits + 2);
  const __m256i words = _mm256_unpacklo_epi32(round_down<kRows>(_mm256_add_epi32(even, odd)),
                                              round_down<kRows>(_mm256_sub_epi32(even, odd)));
  const __m256i narrow = _mm256_packs_epi32(words, words);
  const __m256i bytes = _mm256_xor_si256(_mm256_packs_epi16(narrow, narrow),
                                         _mm256_set1_epi8(static_cast<char>(128)));
  const int32_t samples_a = _mm256_extract_epi32(bytes, 0);
  const int32_t samples_b = _mm256_extract_epi32(bytes, 4);
  for (int y = 0; y < 2; ++y) {
    const int32_t two_a = samples_a >> (16 * y), two_b = samples_b >> (16 * y);
    std::memcpy(out_a + y * stride, &two_a, 2);
    std::memcpy(out_b + y * stride, &two_b, 2);
  }
}

template <int kSize>
FASTSSL_TARGET void reduce_avx2(const int16_t* block, const uint16_t* steps, int32_t num,
                                uint8_t* out, ptrdiff_t stride) {
  if (num == 1) {
    fill_flat<kSize>(block, steps, out, stride);
  } else if (kSize == 4) {
    reduce_two_to_4_avx2(block, block, steps, out, out, stride);
  } else {
    reduce_two_to_2_avx2(block, block, steps, out, out, stride);
  }
}

#endif

}  // namespace

InverseDct pick_reduced_dct(int32_t size, Simd simd) {
#ifdef FASTSSL_AVX2
  if (simd >= Simd::avx2 && size > 1) {
    return size == 4 ? InverseDct{reduce_avx2<4>, reduce_two_to_4_avx2, nullptr}
                     : InverseDct{reduce_avx2<2>, reduce_two_to_2_avx2, nullptr};
  }
#else
  (void)simd;
#endif
  switch (size) {
    case 4:
      return {reduce_plain<4>, reduce_two_plain<4>, nullptr};
    case 2:
      return {reduce_plain<2>, reduce_two_plain<2>, nullptr};
    default:
      return {take_mean, take_two_means, nullptr};
  }
}

}  // namespace fastssl::jpeg
