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

// Whether an EXIF orientation turns the stored columns (rows) about.
inline bool mirrors_columns(int32_t orientation) {
  return orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
}

inline bool mirrors_rows(int32_t orientation) {
  return orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
}

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
  if (mirrors_columns(orientation)) {
    box = {width - box.right, box.top, width - box.left, box.bottom};
  }
  if (mirrors_rows(orientation)) {
    box = {box.left, height - box.bottom, box.right, height - box.top};
  }
  return box;
}

// The pixels that cover a box of the stored picture when each stands for factor x factor of it.
inline Rect cover(const Rect& box, int32_t factor) {
  return {box.left / factor, box.top / factor, (box.right + factor - 1) / factor,
          (box.bottom + factor - 1) / factor};
}

// Where a box of the stored picture lies in what covers it, once that is upright.
Window find_window(const Rect& box, int32_t factor, int32_t orientation);

// Turns a stored crop upright, into `out`: dense, of the upright crop's size.
void turn_upright(const Pixels& crop, int32_t orientation, uint8_t* out);

}  // namespace fastssl::jpeg
