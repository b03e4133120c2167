// The inverse DCT of four blocks at once, for machines with 512-bit registers.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastssl::jpeg {

// As InverseDct::four; only where find_simd says that the machine has them.
void inverse_four(const int16_t* const* blocks, const uint16_t* steps, uint8_t* const* outs,
                  ptrdiff_t stride);

}  // namespace fastssl::jpeg
