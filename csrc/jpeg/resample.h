// Antialiased resampling of RGB crops: what a view's pixels are once its crop is decoded.
//
// The arithmetic is Pillow's (Image.resize of the cropped picture), so the results are equal to the
// bit: weights in 8.22 fixed point, columns first, rounding to 8 bits between the two passes. The
// filter's support is clamped to the crop: pixels outside it never count.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/status.h"

namespace fastssl::jpeg {

// One view: a box of the upright picture, resized to a square; in pixels.
struct ViewBox {
  int32_t left;
  int32_t top;
  int32_t width;
  int32_t height;
  int32_t mid_width;   // Size of a first resampling before the one to the square; 0: there is none.
  int32_t mid_height;  // 0 exactly where mid_width is.
  int32_t filter;      // 0 triangle, 1 area.
};

// Interleaved RGB. `kReadPast` bytes behind the last pixel must be readable; they never count.
struct Pixels {
  const uint8_t* data;
  ptrdiff_t stride;  // Bytes from one row to the next.
  int32_t width;
  int32_t height;
};

// What vector loads may read behind the last pixel of an input.
constexpr size_t kReadPast = 64;

// The weights of one axis of a resampling: output i is the sum over k < num_taps of
// pixel[first[i] + k] * weight[i][k] / 2^22.
struct Taps {
  int32_t num_out = 0;
  int32_t num_taps = 0;          // The same for all outputs; weights beyond an output's own are 0.
  std::vector<int32_t> first;    // num_out entries; first + num_taps may pass the end of the row.
  std::vector<int32_t> count;    // num_out entries: taps that may differ from 0.
  std::vector<int32_t> weights;  // num_out x num_taps.
  std::vector<int16_t> halves;   // The same, split for 16-bit multiplication: see resample.cpp.
};

// Resamples; holds scratch that it uses again, so one is needed for each thread.
class Resampler {
 public:
  // Resizes a picture to out_width x out_height. `out` is dense, and what lies behind it is not
  // touched. Nothing is written unless the status is ok.
  Status resize(const Pixels& in, int32_t filter, int32_t out_width, int32_t out_height,
                uint8_t* out);

  // Cuts a box out of an upright picture and resizes it to side x side by its rule, into `out`
  // (side, side, 3). Status::corrupt where the box does not lie inside the picture.
  Status cut_view(const Pixels& picture, const ViewBox& view, int32_t side, uint8_t* out);

 private:
  Taps columns_;
  Taps rows_;
  std::vector<uint8_t> between_;  // Columns resampled, rows not yet.
  std::vector<uint8_t> middle_;   // The first of two resamplings.
};

// Whether a view can be cut out of a picture of this size, and its numbers are in their ranges.
bool is_inside(const ViewBox& view, int32_t width, int32_t height);

}  // namespace fastssl::jpeg
