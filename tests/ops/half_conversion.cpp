// The conversions of cpu/lanes.h between halves and floats, for test_lanes.py.
#include <cstdint>

#include "cpu/lanes.h"

extern "C" void widen(const uint16_t* from, int64_t num, float* to) {
  for (int64_t i = 0; i < num; ++i) {
    to[i] = fastssl::widen_half(from[i]);
  }
}

extern "C" void narrow(const float* from, int64_t num, uint16_t* to) {
  for (int64_t i = 0; i < num; ++i) {
    to[i] = fastssl::narrow_to_half(from[i]);
  }
}
