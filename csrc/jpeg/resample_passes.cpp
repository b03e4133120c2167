#include "jpeg/resample_passes.h"

#include <algorithm>
#include <cstring>

#include "jpeg/intrinsics.h"

namespace fastssl::jpeg {
namespace {

constexpr int32_t kHalf = 1 << (kPrecision - 1);

uint8_t round_sum(int32_t sum) {
  return static_cast<uint8_t>(std::min(255, std::max(0, sum >> kPrecision)));
}

// Resamples the columns of every row; `stride`: bytes from one row of `out` to the next.
void columns_plain(const Pixels& in, const Taps& taps, uint8_t* out, ptrdiff_t stride) {
  for (int32_t y = 0; y < in.height; ++y) {
    const uint8_t* row = in.data + y * in.stride;
    for (int32_t i = 0; i < taps.num_out; ++i) {
      const int32_t* weights = &taps.weights[static_cast<size_t>(i) * taps.num_taps];
      const uint8_t* pixel = row + static_cast<ptrdiff_t>(taps.first[i]) * 3;
      int32_t sums[3] = {kHalf, kHalf, kHalf};
      for (int32_t k = 0; k < taps.count[i]; ++k, pixel += 3) {
        for (int c = 0; c < 3; ++c) {
          sums[c] += pixel[c] * weights[k];
        }
      }
      for (int c = 0; c < 3; ++c) {
        out[y * stride + i * 3 + c] = round_sum(sums[c]);
      }
    }
  }
}

// Resamples rows: each output row is a weighted sum of input rows of `length` bytes.
void rows_plain(const uint8_t* in, ptrdiff_t stride, ptrdiff_t length, const Taps& taps,
                uint8_t* out, ptrdiff_t out_stride) {
  for (int32_t i = 0; i < taps.num_out; ++i, out += out_stride) {
    const int32_t* weights = &taps.weights[static_cast<size_t>(i) * taps.num_taps];
    const uint8_t* first = in + taps.first[i] * stride;
    for (ptrdiff_t x = 0; x < length; ++x) {
      int32_t sum = kHalf;
      for (int32_t k = 0; k < taps.count[i]; ++k) {
        sum += first[k * stride + x] * weights[k];
      }
      out[x] = round_sum(sum);
    }
  }
}

#ifdef FASTSSL_AVX2

// low + high * 2^15, rounded. The parts may wrap, their sum cannot.
FASTSSL_TARGET_AVX2 inline __m256i join(__m256i low, __m256i high) {
  return _mm256_srai_epi32(_mm256_add_epi32(low, _mm256_slli_epi32(high, kLowBits)), kPrecision);
}

FASTSSL_TARGET_AVX2 inline __m256i broadcast_pair(const int16_t* pair) {
  int32_t both;
  std::memcpy(&both, pair, sizeof(both));
  return _mm256_set1_epi32(both);
}

// One output pixel of two rows, one in each half of a register, as 32-bit (r g b -). A half holds
// the four pixels of four taps, which a shuffle makes pairs (r0 r1 g0 g1 b0 b1 - -) of 16 bits.
FASTSSL_TARGET_AVX2 inline __m256i sum_columns_avx2(const uint8_t* a, const uint8_t* b,
                                                    const int16_t* parts, int32_t num_groups) {
  const __m256i pick_01 = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  const __m256i pick_23 = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
  __m256i low = _mm256_set1_epi32(kHalf);
  __m256i high = _mm256_setzero_si256();
  for (int32_t group = 0; group < num_groups; ++group, parts += 8, a += 12, b += 12) {
    const __m256i bytes =
        _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)a)),
                                _mm_loadu_si128((const __m128i*)b), 1);
    const __m256i first = _mm256_shuffle_epi8(bytes, pick_01);
    const __m256i last = _mm256_shuffle_epi8(bytes, pick_23);
    low = _mm256_add_epi32(low, _mm256_madd_epi16(first, broadcast_pair(parts)));
    low = _mm256_add_epi32(low, _mm256_madd_epi16(last, broadcast_pair(parts + 2)));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(first, broadcast_pair(parts + 4)));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(last, broadcast_pair(parts + 6)));
  }
  return join(low, high);
}

// kGroups: groups of four taps, if it is known; else 0.
template <int32_t kGroups>
FASTSSL_TARGET_AVX2 void columns_by_groups(const Pixels& in, const Taps& taps, uint8_t* out,
                                           ptrdiff_t stride) {
  const int32_t num_groups = kGroups > 0 ? kGroups : taps.num_taps / 4;
  // Two pixels of (r g b -) each, without the gaps.
  const __m256i close = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 2, 4, 5, 6, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  for (int32_t y = 0; y < in.height; y += 2) {
    const int32_t second = std::min(y + 1, in.height - 1);
    const uint8_t* row_a = in.data + y * in.stride;
    const uint8_t* row_b = in.data + second * in.stride;
    uint8_t* out_a = out + y * stride;
    uint8_t* out_b = out + second * stride;
    const int16_t* parts = taps.parts.data();
    for (int32_t i = 0; i < taps.num_out; i += 2, parts += 16 * num_groups) {
      const bool is_pair = i + 1 < taps.num_out;
      const ptrdiff_t left = static_cast<ptrdiff_t>(taps.first[i]) * 3;
      const ptrdiff_t right = is_pair ? static_cast<ptrdiff_t>(taps.first[i + 1]) * 3 : left;
      const __m256i one = sum_columns_avx2(row_a + left, row_b + left, parts, num_groups);
      const __m256i two = sum_columns_avx2(row_a + right, row_b + right,
                                           is_pair ? parts + 8 * num_groups : parts, num_groups);
      const __m256i words = _mm256_packs_epi32(one, two);
      const __m256i bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(words, words), close);
      const auto pixels_a = _mm_cvtsi128_si64(_mm256_castsi256_si128(bytes));
      const auto pixels_b = _mm_cvtsi128_si64(_mm256_extracti128_si256(bytes, 1));
      if (i + 2 < taps.num_out) {
        // The last two bytes fall on the next pixel, which is written later.
        std::memcpy(out_a + i * 3, &pixels_a, 8);
        std::memcpy(out_b + i * 3, &pixels_b, 8);
      } else {
        std::memcpy(out_a + i * 3, &pixels_a, is_pair ? 6 : 3);
        std::memcpy(out_b + i * 3, &pixels_b, is_pair ? 6 : 3);
      }
    }
  }
}

FASTSSL_TARGET_AVX2 void columns_avx2(const Pixels& in, const Taps& taps, uint8_t* out,
                                      ptrdiff_t stride) {
  switch (taps.num_taps / 4) {
    case 1:
      return columns_by_groups<1>(in, taps, out, stride);
    case 2:
      return columns_by_groups<2>(in, taps, out, stride);
    default:
      return columns_by_groups<0>(in, taps, out, stride);
  }
}

// Sixteen columns of one output row.
FASTSSL_TARGET_AVX2 inline __m128i sum_rows_avx2(const uint8_t* in, ptrdiff_t stride, int32_t count,
                                                 const int16_t* parts) {
  __m256i low_a = _mm256_set1_epi32(kHalf);
  __m256i low_b = low_a;
  __m256i high_a = _mm256_setzero_si256();
  __m256i high_b = high_a;
  for (int32_t k = 0; k < count; k += 2) {
    const __m128i one = _mm_loadu_si128((const __m128i*)(in + k * stride));
    // An odd count leaves the last tap alone: its partner's weight is 0, its row may not exist.
    const __m128i two = _mm_loadu_si128((const __m128i*)(in + std::min(k + 1, count - 1) * stride));
    const __m256i pairs_a = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(one, two));
    const __m256i pairs_b = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(one, two));
    const int16_t* pair = parts + k / 4 * 8 + k % 4;
    const __m256i low = broadcast_pair(pair);
    const __m256i high = broadcast_pair(pair + 4);
    low_a = _mm256_add_epi32(low_a, _mm256_madd_epi16(pairs_a, low));
    low_b = _mm256_add_epi32(low_b, _mm256_madd_epi16(pairs_b, low));
    high_a = _mm256_add_epi32(high_a, _mm256_madd_epi16(pairs_a, high));
    high_b = _mm256_add_epi32(high_b, _mm256_madd_epi16(pairs_b, high));
  }
  const __m256i words = _mm256_packs_epi32(join(low_a, high_a), join(low_b, high_b));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
  return _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
}

FASTSSL_TARGET_AVX2 void rows_avx2(const uint8_t* in, ptrdiff_t stride, ptrdiff_t length,
                                   const Taps& taps, uint8_t* out, ptrdiff_t out_stride) {
  const ptrdiff_t whole = length / 16 * 16;
  for (int32_t i = 0; i < taps.num_out; ++i, out += out_stride) {
    const int16_t* parts = &taps.parts[static_cast<size_t>(i) * taps.num_taps * 2];
    const uint8_t* first = in + taps.first[i] * stride;
    const int32_t count = taps.count[i];
    for (ptrdiff_t x = 0; x < whole; x += 16) {
      _mm_storeu_si128((__m128i*)(out + x), sum_rows_avx2(first + x, stride, count, parts));
    }
    if (whole < length) {
      alignas(16) uint8_t tail[16];
      _mm_store_si128((__m128i*)tail, sum_rows_avx2(first + whole, stride, count, parts));
      std::memcpy(out + whole, tail, length - whole);
    }
  }
}

FASTSSL_TARGET_AVX512 inline __m512i join_avx512(__m512i low, __m512i high) {
  return _mm512_srai_epi32(_mm512_add_epi32(low, _mm512_slli_epi32(high, kLowBits)), kPrecision);
}

FASTSSL_TARGET_AVX512 inline __m512i broadcast_pair_avx512(const int16_t* pair) {
  int32_t both;
  std::memcpy(&both, pair, sizeof(both));
  return _mm512_set1_epi32(both);
}

// One output pixel of four rows, one in each quarter of a register; otherwise as above.
FASTSSL_TARGET_AVX512 inline __m512i sum_columns_avx512(const uint8_t* const* rows, ptrdiff_t left,
                                                        const int16_t* parts, int32_t num_groups) {
  const __m512i pick_01 = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  const __m512i pick_23 = _mm512_broadcast_i32x4(
      _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
  __m512i low = _mm512_set1_epi32(kHalf);
  __m512i high = _mm512_setzero_si512();
  for (int32_t group = 0; group < num_groups; ++group, parts += 8, left += 12) {
    __m512i bytes = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i*)(rows[0] + left)));
    bytes = _mm512_inserti32x4(bytes, _mm_loadu_si128((const __m128i*)(rows[1] + left)), 1);
    bytes = _mm512_inserti32x4(bytes, _mm_loadu_si128((const __m128i*)(rows[2] + left)), 2);
    bytes = _mm512_inserti32x4(bytes, _mm_loadu_si128((const __m128i*)(rows[3] + left)), 3);
    const __m512i first = _mm512_shuffle_epi8(bytes, pick_01);
    const __m512i last = _mm512_shuffle_epi8(bytes, pick_23);
    low = _mm512_dpwssd_epi32(low, first, broadcast_pair_avx512(parts));
    high = _mm512_dpwssd_epi32(high, first, broadcast_pair_avx512(parts + 4));
    low = _mm512_dpwssd_epi32(low, last, broadcast_pair_avx512(parts + 2));
    high = _mm512_dpwssd_epi32(high, last, broadcast_pair_avx512(parts + 6));
  }
  return join_avx512(low, high);
}

template <int32_t kGroups>
FASTSSL_TARGET_AVX512 void columns_by_groups_avx512(const Pixels& in, const Taps& taps,
                                                    uint8_t* out, ptrdiff_t stride) {
  const int32_t num_groups = kGroups > 0 ? kGroups : taps.num_taps / 4;
  const int32_t num_out = taps.num_out;
  // Four pixels of (r g b -) each, without the gaps.
  const __m512i close =
      _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1));
  for (int32_t y = 0; y < in.height; y += 4) {
    const uint8_t* rows[4];
    uint8_t* to[4];
    for (int32_t k = 0; k < 4; ++k) {
      const int32_t row = std::min(y + k, in.height - 1);
      rows[k] = in.data + row * in.stride;
      to[k] = out + row * stride;
    }
    for (int32_t i = 0; i < num_out; i += 4) {
      __m512i sums[4];
      for (int32_t k = 0; k < 4; ++k) {
        const int32_t at = std::min(i + k, num_out - 1);
        sums[k] =
            sum_columns_avx512(rows, static_cast<ptrdiff_t>(taps.first[at]) * 3,
                               &taps.parts[static_cast<size_t>(at) * num_groups * 8], num_groups);
      }
      const __m512i words = _mm512_packus_epi16(_mm512_packs_epi32(sums[0], sums[1]),
                                                _mm512_packs_epi32(sums[2], sums[3]));
      const __m512i bytes = _mm512_shuffle_epi8(words, close);
      const __m128i pixels[4] = {_mm512_castsi512_si128(bytes), _mm512_extracti32x4_epi32(bytes, 1),
                                 _mm512_extracti32x4_epi32(bytes, 2),
                                 _mm512_extracti32x4_epi32(bytes, 3)};
      // The last four bytes fall on the next pixels, which are written later, or on nothing.
      const int32_t left = 3 * (num_out - i);
      const auto kept = static_cast<__mmask16>(left < 16 ? (1 << left) - 1 : 0xFFFF);
      for (int32_t k = 0; k < 4; ++k) _mm_mask_storeu_epi8(to[k] + i * 3, kept, pixels[k]);
    }
  }
}

FASTSSL_TARGET_AVX512 void columns_avx512(const Pixels& in, const Taps& taps, uint8_t* out,
                                          ptrdiff_t stride) {
  switch (taps.num_taps / 4) {
    case 1:
      return columns_by_groups_avx512<1>(in, taps, out, stride);
    case 2:
      return columns_by_groups_avx512<2>(in, taps, out, stride);
    default:
      return columns_by_groups_avx512<0>(in, taps, out, stride);
  }
}

// 32 columns of one output row.
FASTSSL_TARGET_AVX512 inline __m256i sum_rows_avx512(const uint8_t* in, ptrdiff_t stride,
                                                     int32_t count, const int16_t* parts,
                                                     __mmask32 kept) {
  __m512i low_a = _mm512_set1_epi32(kHalf);
  __m512i low_b = low_a;
  __m512i high_a = _mm512_setzero_si512();
  __m512i high_b = high_a;
  for (int32_t k = 0; k < count; k += 2) {
    const __m256i one = _mm256_maskz_loadu_epi8(kept, in + k * stride);
    const __m256i two = _mm256_maskz_loadu_epi8(kept, in + std::min(k + 1, count - 1) * stride);
    const __m512i pairs_a = _mm512_cvtepu8_epi16(_mm256_unpacklo_epi8(one, two));
    const __m512i pairs_b = _mm512_cvtepu8_epi16(_mm256_unpackhi_epi8(one, two));
    const int16_t* pair = parts + k / 4 * 8 + k % 4;
    const __m512i low = broadcast_pair_avx512(pair);
    const __m512i high = broadcast_pair_avx512(pair + 4);
    low_a = _mm512_dpwssd_epi32(low_a, pairs_a, low);
    low_b = _mm512_dpwssd_epi32(low_b, pairs_b, low);
    high_a = _mm512_dpwssd_epi32(high_a, pairs_a, high);
    high_b = _mm512_dpwssd_epi32(high_b, pairs_b, high);
  }
  const __m512i zero = _mm512_setzero_si512();
  const __m128i a = _mm512_cvtusepi32_epi8(_mm512_max_epi32(join_avx512(low_a, high_a), zero));
  const __m128i b = _mm512_cvtusepi32_epi8(_mm512_max_epi32(join_avx512(low_b, high_b), zero));
  return _mm256_set_m128i(_mm_unpackhi_epi64(a, b), _mm_unpacklo_epi64(a, b));
}

FASTSSL_TARGET_AVX512 void rows_avx512(const uint8_t* in, ptrdiff_t stride, ptrdiff_t length,
                                       const Taps& taps, uint8_t* out, ptrdiff_t out_stride) {
  for (int32_t i = 0; i < taps.num_out; ++i, out += out_stride) {
    const int16_t* parts = &taps.parts[static_cast<size_t>(i) * taps.num_taps * 2];
    const uint8_t* first = in + taps.first[i] * stride;
    for (ptrdiff_t x = 0; x < length; x += 32) {
      const __mmask32 kept = length - x >= 32 ? ~0u : (1u << (length - x)) - 1;
      const __m256i bytes = sum_rows_avx512(first + x, stride, taps.count[i], parts, kept);
      _mm256_mask_storeu_epi8(out + x, kept, bytes);
    }
  }
}

#endif

}  // namespace

void resample_columns(const Pixels& in, const Taps& taps, Simd simd, uint8_t* out,
                      ptrdiff_t stride) {
#ifdef FASTSSL_AVX2
  if (simd == Simd::avx512) return columns_avx512(in, taps, out, stride);
  if (simd == Simd::avx2) return columns_avx2(in, taps, out, stride);
#else
  (void)simd;
#endif
  columns_plain(in, taps, out, stride);
}

void resample_rows(const Pixels& in, const Taps& taps, Simd simd, uint8_t* out, ptrdiff_t stride) {
  const ptrdiff_t length = static_cast<ptrdiff_t>(in.width) * 3;
#ifdef FASTSSL_AVX2
  if (simd == Simd::avx512) return rows_avx512(in.data, in.stride, length, taps, out, stride);
  if (simd == Simd::avx2) return rows_avx2(in.data, in.stride, length, taps, out, stride);
#else
  (void)simd;
#endif
  rows_plain(in.data, in.stride, length, taps, out, stride);
}

}  // namespace fastssl::jpeg
