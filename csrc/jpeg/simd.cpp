#include "jpeg/simd.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace fastssl::jpeg {
namespace {

Simd find_most() {
#if defined(__x86_64__) && defined(__GNUC__)
  if (!__builtin_cpu_supports("avx2")) return Simd::plain;
  const bool is_wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
                       __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
  return is_wide ? Simd::avx512 : Simd::avx2;
#else
  return Simd::plain;
#endif
}

Simd find_limit() {
  const char* given = std::getenv("FASTSSL_CPU_CAPABILITY");
  if (given == nullptr) return Simd::avx512;
  if (std::strcmp(given, "default") == 0) return Simd::plain;
  return std::strcmp(given, "avx2") == 0 ? Simd::avx2 : Simd::avx512;
}

}  // namespace

Simd find_simd() {
  static const Simd kFound = std::min(find_most(), find_limit());
  return kFound;
}

}  // namespace fastssl::jpeg
