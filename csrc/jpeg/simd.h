// How wide the vector code of the decoder may be.
#pragma once

namespace fastssl::jpeg {

// Each has all that those before it have. The results are equal.
enum class Simd {
  plain,
  avx2,
  avx512,  // F, BW, DQ, VL, VBMI and VNNI: Ice Lake, Zen 4 and later.
};

// The widest that this machine runs and FASTSSL_CPU_CAPABILITY (default, avx2 or avx512), read
// once, allows; other names are refused by the operators of torch (cpu/lanes.cpp), not here.
Simd find_simd();

}  // namespace fastssl::jpeg
