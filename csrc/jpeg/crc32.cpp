#include "jpeg/crc32.h"

#include <array>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#define FASTSSL_HAS_CLMUL 1
#endif

namespace fastssl::jpeg {
namespace {

constexpr uint32_t kPolynomial = 0xEDB88320u;
constexpr int kSlices = 8;

using Tables = std::array<std::array<uint32_t, 256>, kSlices>;

// Table s takes a byte that is followed by s others of the same step.
constexpr Tables make_tables() {
  Tables tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    }
    tables[0][byte] = crc;
  }
  for (int slice = 1; slice < kSlices; ++slice) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t before = tables[slice - 1][byte];
      tables[slice][byte] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}

constexpr Tables kTables = make_tables();

// Continues an inverted CRC.
uint32_t update_by_tables(uint32_t crc, const uint8_t* data, size_t size) {
  for (; size >= kSlices; size -= kSlices, data += kSlices) {
    uint32_t folded = 0;
    for (int k = 0; k < 4; ++k) {
      folded ^= kTables[7 - k][data[k] ^ ((crc >> (8 * k)) & 0xFF)];
      folded ^= kTables[3 - k][data[4 + k]];
    }
    crc = folded;
  }
  for (; size > 0; --size, ++data) {
    crc = (crc >> 8) ^ kTables[0][(crc ^ *data) & 0xFF];
  }
  return crc;
}

#ifdef FASTSSL_HAS_CLMUL

// Folding by carry-less multiplication: Gopal et al., "Fast CRC Computation for Generic Polynomials
// Using PCLMULQDQ Instruction", Intel 2009. Constants are x^n mod P for the distances folded over,
// bit-reflected; tests compare the result with the tables'.
constexpr long long kFold512Low = 0x0154442bd4;
constexpr long long kFold512High = 0x01c6e41596;
constexpr long long kFold128Low = 0x01751997d0;
constexpr long long kFold128High = 0x00ccaa009e;
constexpr long long kFold64 = 0x0163cd6124;
constexpr long long kBarrettPolynomial = 0x01db710641;
constexpr long long kBarrettQuotient = 0x01f7011641;
constexpr size_t kLeast = 64;

#define FASTSSL_CLMUL __attribute__((target("pclmul,sse4.1"), always_inline)) inline

FASTSSL_CLMUL __m128i load(const uint8_t* data) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(data));
}

// Moves a register on by the distance of the constants and adds what stands there.
FASTSSL_CLMUL __m128i fold(__m128i value, __m128i constants, __m128i there) {
  const __m128i low = _mm_clmulepi64_si128(value, constants, 0x00);
  const __m128i high = _mm_clmulepi64_si128(value, constants, 0x11);
  return _mm_xor_si128(_mm_xor_si128(low, high), there);
}

// Continues an inverted CRC over a multiple of 16 bytes, at least kLeast.
__attribute__((target("pclmul,sse4.1"))) uint32_t update_by_clmul(uint32_t crc, const uint8_t* data,
                                                                  size_t size) {
  __m128i x0 = _mm_xor_si128(load(data), _mm_cvtsi32_si128(static_cast<int>(crc)));
  __m128i x1 = load(data + 16);
  __m128i x2 = load(data + 32);
  __m128i x3 = load(data + 48);
  const __m128i far = _mm_set_epi64x(kFold512High, kFold512Low);
  for (data += 64, size -= 64; size >= 64; data += 64, size -= 64) {
    x0 = fold(x0, far, load(data));
    x1 = fold(x1, far, load(data + 16));
    x2 = fold(x2, far, load(data + 32));
    x3 = fold(x3, far, load(data + 48));
  }
  const __m128i near = _mm_set_epi64x(kFold128High, kFold128Low);
  x0 = fold(x0, near, x1);
  x0 = fold(x0, near, x2);
  x0 = fold(x0, near, x3);
  for (; size >= 16; data += 16, size -= 16) {
    x0 = fold(x0, near, load(data));
  }
  // 128 bits to 64, 64 to 32, and Barrett's reduction of the rest.
  const __m128i low_half = _mm_setr_epi32(-1, 0, -1, 0);
  x0 = _mm_xor_si128(_mm_srli_si128(x0, 8), _mm_clmulepi64_si128(x0, near, 0x10));
  x1 = _mm_srli_si128(x0, 4);
  x0 = _mm_and_si128(x0, low_half);
  x0 = _mm_xor_si128(x1, _mm_clmulepi64_si128(x0, _mm_cvtsi64_si128(kFold64), 0x00));
  const __m128i barrett = _mm_set_epi64x(kBarrettQuotient, kBarrettPolynomial);
  x1 = _mm_clmulepi64_si128(_mm_and_si128(x0, low_half), barrett, 0x10);
  x1 = _mm_clmulepi64_si128(_mm_and_si128(x1, low_half), barrett, 0x00);
  return static_cast<uint32_t>(_mm_extract_epi32(_mm_xor_si128(x0, x1), 1));
}

bool has_clmul() {
  static const bool has = __builtin_cpu_supports("pclmul") && __builtin_cpu_supports("sse4.1");
  return has;
}

#endif  // FASTSSL_HAS_CLMUL

}  // namespace

uint32_t crc32_by_tables(const uint8_t* data, size_t size) {
  return ~update_by_tables(~0u, data, size);
}

uint32_t crc32(const uint8_t* data, size_t size) {
  uint32_t crc = ~0u;
#ifdef FASTSSL_HAS_CLMUL
  if (size >= kLeast && has_clmul()) {
    const size_t whole = size / 16 * 16;
    crc = update_by_clmul(crc, data, whole);
    data += whole;
    size -= whole;
  }
#endif
  return ~update_by_tables(crc, data, size);
}

}  // namespace fastssl::jpeg
