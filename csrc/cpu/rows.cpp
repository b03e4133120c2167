// What rows.h declares.
#include "cpu/rows.h"

// Last, as it says itself.
#include "cpu/lanes.h"

namespace fastssl {
namespace {

FASTSSL_INLINE void interleave_body(const float* __restrict red, const float* __restrict green,
                                    const float* __restrict blue, int64_t num,
                                    float* __restrict out) {
  for (int64_t x = 0; x < num; ++x) {
    out[3 * x] = red[x];
    out[3 * x + 1] = green[x];
    out[3 * x + 2] = blue[x];
  }
}

}  // namespace

FASTSSL_KERNEL(interleave,
               (const float* red, const float* green, const float* blue, int64_t num, float* out),
               (red, green, blue, num, out))

}  // namespace fastssl
