// Vector instructions of x86-64.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define FASTSSL_AVX2 1

// GCC 12 warns of its own header: what no instruction reads is "uninitialized" there.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#ifndef __clang__
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#pragma GCC diagnostic pop

#define FASTSSL_TARGET_AVX2 __attribute__((target("avx2")))
// What find_simd asks for.
#define FASTSSL_TARGET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vnni")))
#endif
