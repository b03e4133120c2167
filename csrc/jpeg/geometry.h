// Rectangles of a stored picture, and where they lie once the picture is upright.
#pragma once

#include <algorithm>
#include <cstdint>

#include "jpeg/resample.h"

namespace fastssl::jpeg {

// In pixels; right and bottom are exclusive.
struct Rect {
  int32_t left = 0;
  int32_t top = 0;
  int32_t right = 0;
  int32_t bottom = 0;

  int32_t width() const { return right - left; }
  int32_t height() const { return bottom - top; }
};

// The smallest rectangle around both.
inline Rect unite(const Rect& a, const Rect& b) {
  return {std::min(a.left, b.left), std::min(a.top, b.top), std::max(a.right, b.right),
          std::max(a.bottom, b.bottom)};
}

// Whether an EXIF orientation swaps width and height.
inline bool is_transposed(int32_t orientation) { return orientation >= 5; }

// Where an upright box lies in the stored picture.
//
// view: inside the upright picture.
// width, height: of the stored picture.
// orientation: EXIF, 1..8.
inline Rect to_stored(const ViewBox& view, int32_t width, int32_t height, int32_t orientation) {
  Rect box = {view.left, view.top, view.left + view.width, view.top + view.height};
  if (is_transposed(orientation)) {
    box = {box.top, box.left, box.bottom, box.right};
  }
  if (orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8) {
    box = {width - box.right, box.top, width - box.left, box.bottom};
  }
  if (orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7) {
    box = {box.left, height - box.bottom, box.right, height - box.top};
  }
  return box;
}

// Turns a stored crop upright, into `out`: dense, of the upright crop's size.
void turn_upright(const Pixels& crop, int32_t orientation, uint8_t* out);

}  // namespace fastssl::jpeg
