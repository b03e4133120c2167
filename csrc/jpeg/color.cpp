#include "jpeg/color.h"

#include <algorithm>
#include <cstring>

#include "jpeg/intrinsics.h"

namespace fastssl::jpeg {
namespace {

// ITU-R BT.601 in units of 2^-16, as libjpeg rounds it.
constexpr int kBits = 16;
constexpr int32_t kHalf = 1 << (kBits - 1);
constexpr int32_t kRedCr = 91881;     // 1.40200
constexpr int32_t kGreenCb = -22554;  // 0.34414
constexpr int32_t kGreenCr = -46802;  // 0.71414
constexpr int32_t kBlueCb = 116130;   // 1.77200

uint8_t clamp(int32_t value) { return static_cast<uint8_t>(std::min(255, std::max(0, value))); }

void convert_plain(const uint8_t* y, const uint8_t* cb, const uint8_t* cr, int32_t num,
                   uint8_t* rgb) {
  for (int32_t i = 0; i < num; ++i, rgb += 3) {
    const int32_t b = cb[i] - 128, r = cr[i] - 128;
    rgb[0] = clamp(y[i] + ((kRedCr * r + kHalf) >> kBits));
    rgb[1] = clamp(y[i] + ((kGreenCb * b + kGreenCr * r + kHalf) >> kBits));
    rgb[2] = clamp(y[i] + ((kBlueCb * b + kHalf) >> kBits));
  }
}

// The ends of a blend of two samples round in turn up and down.
void widen_plain(const uint8_t* near, int32_t num, uint8_t* out) {
  for (int32_t i = 0; i < num; ++i) {
    out[2 * i] = static_cast<uint8_t>((3 * near[i] + near[i - 1] + 1) >> 2);
    out[2 * i + 1] = static_cast<uint8_t>((3 * near[i] + near[i + 1] + 2) >> 2);
  }
}

void blend_plain(const uint8_t* near, const uint8_t* far, bool is_lower, int32_t num,
                 uint8_t* out) {
  const int32_t bias = is_lower ? 2 : 1;
  for (int32_t i = 0; i < num; ++i) {
    out[i] = static_cast<uint8_t>((3 * near[i] + far[i] + bias) >> 2);
  }
}

void widen_blend_plain(const uint8_t* near, const uint8_t* far, int32_t num, uint8_t* out) {
  auto blend = [near, far](int32_t i) { return 3 * near[i] + far[i]; };
  for (int32_t i = 0; i < num; ++i) {
    out[2 * i] = static_cast<uint8_t>((3 * blend(i) + blend(i - 1) + 8) >> 4);
    out[2 * i + 1] = static_cast<uint8_t>((3 * blend(i) + blend(i + 1) + 7) >> 4);
  }
}

template <int kTimes>
void repeat_plain(const uint8_t* near, int32_t num, uint8_t* out) {
  for (int32_t i = 0; i < num; ++i) {
    std::memset(out + kTimes * i, near[i], kTimes);
  }
}

#ifdef FASTSSL_AVX2

// The factors of green, of which Cr's is split as below.
constexpr auto kGreenPair = static_cast<int32_t>(
    static_cast<uint32_t>(kGreenCr + (1 << kBits)) << 16 | static_cast<uint16_t>(kGreenCb));

FASTSSL_TARGET_AVX2 inline __m256i load_16(const uint8_t* at) {
  return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)at));
}

// Sixteen samples, each from 16 bits to 8 in the order of memory.
FASTSSL_TARGET_AVX2 inline __m128i pack_16(__m256i words) {
  return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

FASTSSL_TARGET_AVX2 inline __m256i three_times(__m256i a) {
  return _mm256_add_epi16(a, _mm256_add_epi16(a, a));
}

FASTSSL_TARGET_AVX2 inline void store_pairs(__m256i even, __m256i odd, uint8_t* out) {
  // Both are below 256: odd ones into the high bytes.
  _mm256_storeu_si256((__m256i*)out, _mm256_or_si256(even, _mm256_slli_epi16(odd, 8)));
}

FASTSSL_TARGET_AVX2 void widen_avx2(const uint8_t* near, int32_t num, uint8_t* out) {
  const __m256i one = _mm256_set1_epi16(1), two = _mm256_set1_epi16(2);
  for (int32_t i = 0; i < num; i += 16) {
    const __m256i middle = three_times(load_16(near + i));
    const __m256i even = _mm256_add_epi16(_mm256_add_epi16(middle, load_16(near + i - 1)), one);
    const __m256i odd = _mm256_add_epi16(_mm256_add_epi16(middle, load_16(near + i + 1)), two);
    store_pairs(_mm256_srli_epi16(even, 2), _mm256_srli_epi16(odd, 2), out + 2 * i);
  }
}

FASTSSL_TARGET_AVX2 inline __m256i blend_16(const uint8_t* near, const uint8_t* far) {
  return _mm256_add_epi16(three_times(load_16(near)), load_16(far));
}

FASTSSL_TARGET_AVX2 void blend_avx2(const uint8_t* near, const uint8_t* far, bool is_lower,
                                    int32_t num, uint8_t* out) {
  const __m256i bias = _mm256_set1_epi16(is_lower ? 2 : 1);
  for (int32_t i = 0; i < num; i += 16) {
    const __m256i sum = _mm256_add_epi16(blend_16(near + i, far + i), bias);
    _mm_storeu_si128((__m128i*)(out + i), pack_16(_mm256_srli_epi16(sum, 2)));
  }
}

FASTSSL_TARGET_AVX2 void widen_blend_avx2(const uint8_t* near, const uint8_t* far, int32_t num,
                                          uint8_t* out) {
  const __m256i eight = _mm256_set1_epi16(8), seven = _mm256_set1_epi16(7);
  for (int32_t i = 0; i < num; i += 16) {
    const __m256i middle = three_times(blend_16(near + i, far + i));
    const __m256i before = blend_16(near + i - 1, far + i - 1);
    const __m256i after = blend_16(near + i + 1, far + i + 1);
    const __m256i even = _mm256_add_epi16(_mm256_add_epi16(middle, before), eight);
    const __m256i odd = _mm256_add_epi16(_mm256_add_epi16(middle, after), seven);
    store_pairs(_mm256_srli_epi16(even, 4), _mm256_srli_epi16(odd, 4), out + 2 * i);
  }
}

// 16 bytes each of red, green and blue, interleaved: three vectors.
FASTSSL_TARGET_AVX2 inline void interleave(__m128i r, __m128i g, __m128i b, __m128i* out) {
  const __m128i r0 = _mm_setr_epi8(0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5);
  const __m128i g0 = _mm_setr_epi8(-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1);
  const __m128i b0 = _mm_setr_epi8(-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1);
  const __m128i r1 = _mm_setr_epi8(-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1);
  const __m128i g1 = _mm_setr_epi8(5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10);
  const __m128i b1 = _mm_setr_epi8(-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1);
  const __m128i r2 = _mm_setr_epi8(-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1);
  const __m128i g2 = _mm_setr_epi8(-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1);
  const __m128i b2 = _mm_setr_epi8(10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15);
  auto merge = [](__m128i x, __m128i y, __m128i z) { return _mm_or_si128(x, _mm_or_si128(y, z)); };
  out[0] = merge(_mm_shuffle_epi8(r, r0), _mm_shuffle_epi8(g, g0), _mm_shuffle_epi8(b, b0));
  out[1] = merge(_mm_shuffle_epi8(r, r1), _mm_shuffle_epi8(g, g1), _mm_shuffle_epi8(b, b1));
  out[2] = merge(_mm_shuffle_epi8(r, r2), _mm_shuffle_epi8(g, g2), _mm_shuffle_epi8(b, b2));
}

// Sixteen pixels. Factors above 1 are split into a whole part and a rest that fits in 16 bits.
FASTSSL_TARGET_AVX2 inline void convert_16(const uint8_t* y, const uint8_t* cb, const uint8_t* cr,
                                           __m128i* out) {
  const __m256i center = _mm256_set1_epi16(128), one = _mm256_set1_epi16(1);
  const __m256i luma = load_16(y);
  const __m256i b = _mm256_sub_epi16(load_16(cb), center);
  const __m256i r = _mm256_sub_epi16(load_16(cr), center);
  const __m256i b2 = _mm256_add_epi16(b, b), r2 = _mm256_add_epi16(r, r);
  // (2 * v * rest / 2^16 + 1) / 2 rounds as (v * rest + half) / 2^16 does.
  const __m256i red_rest = _mm256_mulhi_epi16(r2, _mm256_set1_epi16(kRedCr - (1 << kBits)));
  const __m256i blue_rest = _mm256_mulhi_epi16(b2, _mm256_set1_epi16(kBlueCb - (2 << kBits)));
  const __m256i red = _mm256_add_epi16(_mm256_add_epi16(luma, r),
                                       _mm256_srai_epi16(_mm256_add_epi16(red_rest, one), 1));
  const __m256i blue = _mm256_add_epi16(_mm256_add_epi16(luma, b2),
                                        _mm256_srai_epi16(_mm256_add_epi16(blue_rest, one), 1));
  const __m256i pair = _mm256_set1_epi32(kGreenPair), half = _mm256_set1_epi32(kHalf);
  const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(b, r), pair);
  const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(b, r), pair);
  const __m256i green_rest =
      _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(low, half), kBits),
                         _mm256_srai_epi32(_mm256_add_epi32(high, half), kBits));
  const __m256i green = _mm256_add_epi16(luma, _mm256_sub_epi16(green_rest, r));
  interleave(pack_16(red), pack_16(green), pack_16(blue), out);
}

FASTSSL_TARGET_AVX2 void convert_avx2(const uint8_t* y, const uint8_t* cb, const uint8_t* cr,
                                      int32_t num, uint8_t* rgb) {
  __m128i out[3];
  int32_t i = 0;
  for (; i + 16 <= num; i += 16, rgb += 48) {
    convert_16(y + i, cb + i, cr + i, out);
    _mm_storeu_si128((__m128i*)rgb, out[0]);
    _mm_storeu_si128((__m128i*)(rgb + 16), out[1]);
    _mm_storeu_si128((__m128i*)(rgb + 32), out[2]);
  }
  if (i < num) {
    convert_16(y + i, cb + i, cr + i, out);
    std::memcpy(rgb, out, static_cast<size_t>(3 * (num - i)));
  }
}

// The bytes of 32 pixels' red, green and blue, in turn: byte i of a row comes from channel i % 3.
// Index of the first 64 and the last 32 in (red, green) and (blue, -) behind each other.
struct Interleaving {
  alignas(64) uint8_t of[128];

  constexpr Interleaving() : of() {
    for (int i = 0; i < 96; ++i) {
      const int pixel = i / 3, channel = i % 3;
      of[i] = static_cast<uint8_t>(channel * 32 + pixel);
    }
  }
};

constexpr Interleaving kInterleaving;

FASTSSL_TARGET_AVX512 inline __m512i load_32(const uint8_t* at) {
  return _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)at));
}

FASTSSL_TARGET_AVX512 inline __m256i pack_32(__m512i words) {
  return _mm512_cvtusepi16_epi8(_mm512_max_epi16(words, _mm512_setzero_si512()));
}

// 32 pixels, as 16 above.
FASTSSL_TARGET_AVX512 inline void convert_32(const uint8_t* y, const uint8_t* cb, const uint8_t* cr,
                                             __m512i* out) {
  const __m512i center = _mm512_set1_epi16(128), one = _mm512_set1_epi16(1);
  const __m512i luma = load_32(y);
  const __m512i b = _mm512_sub_epi16(load_32(cb), center);
  const __m512i r = _mm512_sub_epi16(load_32(cr), center);
  const __m512i b2 = _mm512_add_epi16(b, b), r2 = _mm512_add_epi16(r, r);
  const __m512i red_rest = _mm512_mulhi_epi16(r2, _mm512_set1_epi16(kRedCr - (1 << kBits)));
  const __m512i blue_rest = _mm512_mulhi_epi16(b2, _mm512_set1_epi16(kBlueCb - (2 << kBits)));
  const __m512i red = _mm512_add_epi16(_mm512_add_epi16(luma, r),
                                       _mm512_srai_epi16(_mm512_add_epi16(red_rest, one), 1));
  const __m512i blue = _mm512_add_epi16(_mm512_add_epi16(luma, b2),
                                        _mm512_srai_epi16(_mm512_add_epi16(blue_rest, one), 1));
  const __m512i pair = _mm512_set1_epi32(kGreenPair), half = _mm512_set1_epi32(kHalf);
  const __m512i low = _mm512_madd_epi16(_mm512_unpacklo_epi16(b, r), pair);
  const __m512i high = _mm512_madd_epi16(_mm512_unpackhi_epi16(b, r), pair);
  const __m512i green_rest =
      _mm512_packs_epi32(_mm512_srai_epi32(_mm512_add_epi32(low, half), kBits),
                         _mm512_srai_epi32(_mm512_add_epi32(high, half), kBits));
  const __m512i green = _mm512_add_epi16(luma, _mm512_sub_epi16(green_rest, r));
  const __m512i red_green =
      _mm512_inserti64x4(_mm512_castsi256_si512(pack_32(red)), pack_32(green), 1);
  const __m512i only_blue = _mm512_castsi256_si512(pack_32(blue));
  for (int k = 0; k < 2; ++k) {
    const __m512i places = _mm512_load_si512(kInterleaving.of + 64 * k);
    out[k] = _mm512_permutex2var_epi8(red_green, places, only_blue);
  }
}

FASTSSL_TARGET_AVX512 void convert_avx512(const uint8_t* y, const uint8_t* cb, const uint8_t* cr,
                                          int32_t num, uint8_t* rgb) {
  __m512i out[2];
  int32_t i = 0;
  for (; i + 32 <= num; i += 32, rgb += 96) {
    convert_32(y + i, cb + i, cr + i, out);
    _mm512_storeu_si512(rgb, out[0]);
    _mm256_storeu_si256((__m256i*)(rgb + 64), _mm512_castsi512_si256(out[1]));
  }
  if (i < num) {
    convert_32(y + i, cb + i, cr + i, out);
    std::memcpy(rgb, out, static_cast<size_t>(3 * (num - i)));
  }
}

#endif

}  // namespace

void upsample_row(Upsampling kind, const uint8_t* near, const uint8_t* far, bool is_lower,
                  int32_t num, Simd simd, uint8_t* out) {
#ifdef FASTSSL_AVX2
  if (simd >= Simd::avx2) {
    if (kind == Upsampling::h2v1) return widen_avx2(near, num, out);
    if (kind == Upsampling::h1v2) return blend_avx2(near, far, is_lower, num, out);
    if (kind == Upsampling::h2v2) return widen_blend_avx2(near, far, num, out);
  }
#else
  (void)simd;
#endif
  switch (kind) {
    case Upsampling::none:
    case Upsampling::h1v2_repeated:
      std::memcpy(out, near, static_cast<size_t>(num));
      return;
    case Upsampling::h2v1:
      return widen_plain(near, num, out);
    case Upsampling::h1v2:
      return blend_plain(near, far, is_lower, num, out);
    case Upsampling::h2v2:
      return widen_blend_plain(near, far, num, out);
    case Upsampling::h4v1:
      return repeat_plain<4>(near, num, out);
    case Upsampling::h2v1_repeated:
      return repeat_plain<2>(near, num, out);
  }
}

void convert_row(const uint8_t* y, const uint8_t* cb, const uint8_t* cr, int32_t num, Simd simd,
                 uint8_t* rgb) {
#ifdef FASTSSL_AVX2
  if (simd == Simd::avx512) return convert_avx512(y, cb, cr, num, rgb);
  if (simd == Simd::avx2) return convert_avx2(y, cb, cr, num, rgb);
#else
  (void)simd;
#endif
  convert_plain(y, cb, cr, num, rgb);
}

void convert_grey_row(const uint8_t* y, int32_t num, uint8_t* rgb) {
  for (int32_t i = 0; i < num; ++i) {
    rgb[3 * i] = rgb[3 * i + 1] = rgb[3 * i + 2] = y[i];
  }
}

}  // namespace fastssl::jpeg
