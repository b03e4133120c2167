#include "jpeg/idct_four.h"

#define FASTSSL_FOUR_BLOCKS
#include "jpeg/idct_lanes.h"

namespace fastssl::jpeg {

#ifdef FASTSSL_AVX2

namespace {

// The same row of four blocks.
FASTSSL_TARGET inline Lanes load_four(const int16_t* const* blocks, int y) {
  auto load = [=](int i) { return _mm_loadu_si128((const __m128i*)(blocks[i] + 8 * y)); };
  Lanes rows = _mm512_castsi128_si512(load(0));
  rows = _mm512_inserti32x4(rows, load(1), 1);
  rows = _mm512_inserti32x4(rows, load(2), 2);
  return _mm512_inserti32x4(rows, load(3), 3);
}

// As that of two blocks: puts the shifted first row in place of what the first pass gave for blocks
// with nothing below it.
FASTSSL_TARGET inline void keep_flat(Lanes below, Lanes first, Lanes* rows) {
  const __mmask8 differs = _mm512_test_epi64_mask(below, below);
  __mmask8 is_flat = 0;
  for (int i = 0; i < 4; ++i) {
    if ((differs >> 2 * i & 3) == 0) is_flat |= static_cast<__mmask8>(3 << 2 * i);
  }
  if (is_flat == 0) return;
  const Lanes shifted = _mm512_slli_epi16(first, kExtraBits);
  for (int y = 0; y < 8; ++y) rows[y] = _mm512_mask_blend_epi64(is_flat, rows[y], shifted);
}

}  // namespace

FASTSSL_TARGET void inverse_four(const int16_t* const* blocks, const uint16_t* steps,
                                 uint8_t* const* outs, ptrdiff_t stride) {
  Lanes rows[8];
  Lanes below = zeros();
  for (int y = 0; y < 8; ++y) {
    const Lanes row = load_four(blocks, y);
    below = y > 0 ? _mm512_or_si512(below, row) : below;
    rows[y] = dequantise(row, steps + 8 * y);
  }
  const Lanes first = rows[0];
  transform<kShiftColumns>(rows);
  keep_flat(below, first, rows);
  transpose(rows);
  transform<kShiftRows>(rows);
  transpose(rows);
  const Lanes middle = _mm512_set1_epi8(static_cast<char>(128));
  for (int y = 0; y < 8; y += 2) {
    const Lanes bytes = _mm512_xor_si512(_mm512_packs_epi16(rows[y], rows[y + 1]), middle);
    const __m128i of_block[4] = {_mm512_castsi512_si128(bytes), _mm512_extracti32x4_epi32(bytes, 1),
                                 _mm512_extracti32x4_epi32(bytes, 2),
                                 _mm512_extracti32x4_epi32(bytes, 3)};
    for (int i = 0; i < 4; ++i) {
      uint8_t* const out = outs[i] + y * stride;
      _mm_storel_epi64((__m128i*)out, of_block[i]);
      _mm_storeh_pd((double*)(out + stride), _mm_castsi128_pd(of_block[i]));
    }
  }
}

#else

void inverse_four(const int16_t* const*, const uint16_t*, uint8_t* const*, ptrdiff_t) {}

#endif

}  // namespace fastssl::jpeg
