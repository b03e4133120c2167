// bfloat16 for kernels that run on the host.
#pragma once

#include <cstdint>
#include <cstring>

struct Bfloat16 {
  uint16_t bits;

  // To nearest, ties to even.
  static Bfloat16 round(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof(bits));
    return {static_cast<uint16_t>((bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16)};
  }
};
