// What an EXIF orientation does to a picture, done to its coefficients.
#pragma once

#include <cstdint>

#include "jpeg/parse.h"

namespace fastssl::jpeg {

// How the stored picture becomes the upright one: flips along its own axes, then a transposition.
struct Turn {
  bool flip_x;
  bool flip_y;
  bool transpose;
};

inline Turn find_turn(int orientation) {
  return {orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8,
          orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7,
          orientation >= 5};
}

// A flip moves the last MCU to the front: it has to be whole.
inline bool is_exact(Turn turn, const Layout& layout) {
  return !(turn.flip_x && layout.width % layout.mcu_width != 0) &&
         !(turn.flip_y && layout.height % layout.mcu_height != 0);
}

// Turns the coefficients of a block: a flip negates every odd frequency.
inline void turn_block(const int16_t* from, Turn turn, int16_t* to) {
  constexpr int kSide = 8;
  for (int v = 0; v < kSide; ++v) {
    for (int h = 0; h < kSide; ++h) {
      const bool is_negative = (turn.flip_x && h % 2 == 1) != (turn.flip_y && v % 2 == 1);
      const int16_t value = from[v * kSide + h];
      to[turn.transpose ? h * kSide + v : v * kSide + h] = is_negative ? -value : value;
    }
  }
}

}  // namespace fastssl::jpeg
