// Arithmetic that the compiler turns into vector instructions, and one copy of a function for each
// set of them. Copies may differ in the last bit, as torch's own kernels do: one has fused
// multiply-adds.
#pragma once

#include <cstdint>

// GCC keeps a choice between two floats out of vectors in case somebody counts floating-point
// exceptions; results do not depend on it. It holds for what follows: include this file last.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("no-trapping-math")
#endif

// A kernel is an inline function; FASTSSL_KERNEL makes of `name_body` the function `name`, which
// takes the copy that this machine can run. GCC's target_clones cannot ask for two features.
#define FASTSSL_INLINE __attribute__((always_inline)) inline
#if defined(__x86_64__) && defined(__GNUC__)
// Left to itself, GCC makes vectors of 256 bits of AVX-512.
#if defined(__clang__)
#define FASTSSL_WIDEST "avx512f,avx512bw,avx512dq,avx512vl,fma"
#else
#define FASTSSL_WIDEST "avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512"
#endif
#define FASTSSL_KERNEL(name, parameters, arguments)                                                \
  __attribute__((target(FASTSSL_WIDEST))) void name##_widest parameters { name##_body arguments; } \
  __attribute__((target("avx2,fma"))) void name##_wide parameters { name##_body arguments; }       \
  void name##_plain parameters { name##_body arguments; }                                          \
  void name parameters {                                                                           \
    static const Lanes kLanes = find_lanes();                                                      \
    switch (kLanes) {                                                                              \
      case Lanes::kWidest:                                                                         \
        return name##_widest arguments;                                                            \
      case Lanes::kWide:                                                                           \
        return name##_wide arguments;                                                              \
      default:                                                                                     \
        return name##_plain arguments;                                                             \
    }                                                                                              \
  }
#else
#define FASTSSL_KERNEL(name, parameters, arguments) \
  void name parameters { name##_body arguments; }
#endif

namespace fastssl {

#if defined(__x86_64__) && defined(__GNUC__)
// The copies of a kernel: for every x86-64, for AVX2, and for AVX-512.
enum class Lanes { kPlain, kWide, kWidest };

// The widest one that this machine runs and FASTSSL_CPU_CAPABILITY (default, avx2 or avx512), read
// once, allows: so all copies can be tested and measured on one machine. Throws on another name.
Lanes find_lanes();
#endif

// Where adding it rounds a float to a whole number: 1.5 * 2^23.
constexpr float kRounder = 12582912.0f;

FASTSSL_INLINE float round_even(float x) { return (x + kRounder) - kRounder; }

// exp(x) for x up to 88; below -87 it stays at exp(-87). Off by 2 units in the last place at most.
FASTSSL_INLINE float fast_exp(float x) {
  x = x < -87.0f ? -87.0f : x;  // a NaN stays one
  const float n = round_even(x * 1.44269504f);
  // ln 2 in two parts, the first of few bits: n times it is exact.
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * (r * r) + r;
  const int32_t power = (static_cast<int32_t>(n) + 127) << 23;
  return (p + 1.0f) * __builtin_bit_cast(float, power);
}

// The cube root of 0.001 .. 8 to the last bit: a guess from the exponent, Halley's step, Newton's.
FASTSSL_INLINE float fast_cbrt(float x) {
  const auto bits = static_cast<float>(__builtin_bit_cast(int32_t, x));
  const auto guess = static_cast<int32_t>(bits * (1.0f / 3.0f) + 709921077.0f);
  float y = __builtin_bit_cast(float, guess);
  const float cube = y * y * y;
  y = y * ((cube + 2.0f * x) / (2.0f * cube + x));
  // In this form what is rounded is small.
  return y - (y * y * y - x) / (3.0f * (y * y));
}

// The float of a half's bits.
FASTSSL_INLINE float widen_half(uint16_t half) {
  const int32_t size = half & 0x7FFF, sign = static_cast<int32_t>(half & 0x8000u) << 16;
  // The same bits further up with the float's bias of exponents, 112 more, or its mark of infinity.
  const int32_t bias = size < 0x7C00 ? 112 << 23 : 224 << 23;
  const int32_t normal = (size << 13) + bias;
  // Below 2^-14 the bits count steps of 2^-24, which is what the last bit of 0.5 is worth.
  const float steps = __builtin_bit_cast(float, 0x3F000000 | size) - 0.5f;
  const int32_t bits = size < 0x0400 ? __builtin_bit_cast(int32_t, steps) : normal;
  return __builtin_bit_cast(float, bits | sign);
}

// The bits of the nearest half, ties to even.
FASTSSL_INLINE uint16_t narrow_to_half(float x) {
  const int32_t bits = __builtin_bit_cast(int32_t, x), size = bits & 0x7FFFFFFF;
  const int32_t rounded = (size - (112 << 23) + 0x0FFF + ((size >> 13) & 1)) >> 13;
  const int32_t normal = rounded < 0x7C00 ? rounded : 0x7C00;
  const float steps = __builtin_bit_cast(float, size) + 0.5f;
  const int32_t small = __builtin_bit_cast(int32_t, steps) - 0x3F000000;
  int32_t half = size < 113 << 23 ? small : normal;
  half = size > 0x7F800000 ? 0x7E00 : half;
  return static_cast<uint16_t>(half | ((bits >> 16) & 0x8000));
}

}  // namespace fastssl
