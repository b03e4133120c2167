// Antialiased resampling of RGB crops: what a view's pixels are once its crop is decoded.
//
// The arithmetic is that of Pillow 13 (Image.resize of the cropped picture), so the results are
// equal to the bit: weights in 8.22 fixed point, rounding to 8 bits between the two passes. The
// filter's support is clamped to the crop: pixels outside it never count.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/simd.h"
#include "jpeg/status.h"

namespace fastssl::jpeg {

// One view: a box of the upright picture, resized into the upper left corner of a black square; in
// pixels.
struct ViewBox {
  int32_t left;
  int32_t top;
  int32_t width;
  int32_t height;
  int32_t mid_width;   // Size of a first resampling before the one to the square; 0: there is none.
  int32_t mid_height;  // 0 exactly where mid_width is.
  int32_t filter;      // 0 triangle, 1 area.
  int32_t out_width;   // What the box is resized to: 1 .. the square's side.
  int32_t out_height;
};

// Interleaved RGB. `kReadPast` bytes behind the last pixel must be readable; they never count.
struct Pixels {
  const uint8_t* data;
  ptrdiff_t stride;  // Bytes from one row to the next.
  int32_t width;
  int32_t height;
};

// The part of a picture that is resized, in its pixels; edges need not lie between two of them.
struct Window {
  double left;
  double top;
  double width;
  double height;
};

// What vector loads may read behind the last pixel of an input, in bytes.
constexpr size_t kReadPast = 64;

// The weights of one axis: output i is the sum over k of input[first[i] + k] * weight[i][k] / 2^22.
struct Taps {
  int32_t num_in = 0;
  double begin = 0;  // Of the part that is resized.
  double length = 0;
  int32_t num_out = 0;
  int32_t filter = -1;
  int32_t num_taps = 0;          // Of every output: a multiple of 4; weights past its own are 0.
  std::vector<int32_t> first;    // num_out.
  std::vector<int32_t> count;    // num_out: an output's own taps.
  std::vector<int32_t> weights;  // num_out x num_taps.
  // The weights as 16-bit parts, low = w & 32767 and high = w >> 15, since vector units multiply
  // 16 bits at twice the rate of 32: num_out x num_taps / 4 x (4 low, 4 high).
  std::vector<int16_t> parts;
};

// Resamples; holds scratch that it uses again, so one is needed for each thread.
class Resampler {
 public:
  // Resizes a picture into `out` (out_height, out_width, 3), whose rows are `stride` bytes apart.
  Status resize(const Pixels& in, int32_t filter, int32_t out_width, int32_t out_height,
                uint8_t* out, ptrdiff_t stride);

  // Resizes the part of a picture that lies in a window. Pixels that the window cuts count as whole
  // ones do: by the distance of their centres.
  Status resize(const Pixels& in, const Window& window, int32_t filter, int32_t out_width,
                int32_t out_height, uint8_t* out, ptrdiff_t stride);

  // Resizes a window by a view's rule, whose box it is, into `out` (side, side, 3); what the view
  // does not fill becomes black.
  Status resize_view(const Pixels& in, const Window& window, const ViewBox& view, int32_t side,
                     uint8_t* out);

  // Cuts a box out of an upright picture and resizes it by its rule, into `out` (side, side, 3).
  // Status::corrupt where the box does not lie inside the picture, or the view not in its square.
  Status cut_view(const Pixels& picture, const ViewBox& view, int32_t side, uint8_t* out);

  // Lets vector code be no wider than that; the results are the same.
  void set_simd(Simd most) { simd_ = std::min(most, find_simd()); }

 private:
  Taps columns_;
  Taps rows_;
  std::vector<uint8_t> between_;  // Columns resampled, rows not yet.
  std::vector<uint8_t> middle_;   // The first of two resamplings.
  Simd simd_ = find_simd();
};

// Whether a view can be cut out of a picture of this size into a square of this side, and its
// numbers are in their ranges.
bool is_inside(const ViewBox& view, int32_t width, int32_t height, int32_t side);

}  // namespace fastssl::jpeg
