// Which copy of the kernels this process runs.
#include "cpu/lanes.h"

#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>

namespace fastssl {

#if defined(__x86_64__) && defined(__GNUC__)
namespace {

Lanes find_most_lanes() {
  const bool has_fma = __builtin_cpu_supports("fma");
  const bool is_widest = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_fma && is_widest) {
    return Lanes::kWidest;
  }
  return has_fma && __builtin_cpu_supports("avx2") ? Lanes::kWide : Lanes::kPlain;
}

Lanes choose_lanes() {
  const Lanes most = find_most_lanes();
  const char* given = std::getenv("FASTSSL_CPU_CAPABILITY");
  if (given == nullptr || *given == '\0') {
    return most;
  }
  const std::string name = given;
  TORCH_CHECK_VALUE(name == "default" || name == "avx2" || name == "avx512",
                    "FASTSSL_CPU_CAPABILITY must be default, avx2 or avx512, got ", name,
                    "; unset it to take what this machine has");
  const Lanes wanted = name == "avx512" ? Lanes::kWidest
                       : name == "avx2" ? Lanes::kWide
                                        : Lanes::kPlain;
  return wanted < most ? wanted : most;
}

}  // namespace

Lanes find_lanes() {
  static const Lanes kChosen = choose_lanes();
  return kChosen;
}
#endif

}  // namespace fastssl

// For tests and for who measures: the copy that runs, by the names of FASTSSL_CPU_CAPABILITY.
extern "C" __attribute__((visibility("default"), used)) const char* fastssl_cpu_capability(void) {
#if defined(__x86_64__) && defined(__GNUC__)
  switch (fastssl::find_lanes()) {
    case fastssl::Lanes::kWidest:
      return "avx512";
    case fastssl::Lanes::kWide:
      return "avx2";
    case fastssl::Lanes::kPlain:
      break;
  }
#endif
  return "default";
}
