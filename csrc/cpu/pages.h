// Memory of large outputs.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <ATen/ATen.h>

#include <cstdint>

namespace fastssl {

// Asks for pages of 2 MiB inside a new output, not touched yet, that holds four whole ones. What
// torch allocates beyond some tens of MB comes from the kernel and goes back to it each time: with
// pages of 4 kB, touching them costs several times what filling them does. Advice: nothing fails
// without it.
inline void advise_huge_pages([[maybe_unused]] const at::Tensor& out) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kPage = uintptr_t{1} << 21;
  const auto address = reinterpret_cast<uintptr_t>(out.const_data_ptr());
  const uintptr_t begin = (address + kPage - 1) / kPage * kPage;
  const uintptr_t end = (address + out.nbytes()) / kPage * kPage;
  if (end >= begin + 4 * kPage) {
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
#endif
}

}  // namespace fastssl
