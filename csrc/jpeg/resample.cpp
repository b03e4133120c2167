#include "jpeg/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "jpeg/resample_passes.h"

namespace fastssl::jpeg {
namespace {

// Above it Pillow's own box arithmetic, in single precision, rounds.
constexpr int32_t kMaxSide = 1 << 24;
constexpr int64_t kMaxPixels = int64_t{1} << 29;

double weigh(int32_t filter, double x) {
  if (filter == 1) {
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
  }
  return std::max(0.0, 1.0 - std::abs(x));
}

// Computes the weights of an axis, unless `taps` holds them already.
//
// begin, length: the part of the num_in pixels that is resized.
void plan_taps(int32_t num_in, double begin, double length, int32_t num_out, int32_t filter,
               Taps* taps) {
  if (taps->num_in == num_in && taps->begin == begin && taps->length == length &&
      taps->num_out == num_out && taps->filter == filter) {
    return;
  }
  taps->filter = -1;  // Holds nothing, should memory run out below.
  const double scale = length / num_out;
  const double stretch = std::max(scale, 1.0);
  const double support = (filter == 1 ? 0.5 : 1.0) * stretch;
  taps->first.resize(num_out);
  taps->count.resize(num_out);
  int32_t longest = 0;
  for (int32_t i = 0; i < num_out; ++i) {
    const double center = begin + (i + 0.5) * scale;
    const int32_t first = std::max(0, static_cast<int32_t>(center - support + 0.5));
    const int32_t end = std::min(num_in, static_cast<int32_t>(center + support + 0.5));
    taps->first[i] = first;
    taps->count[i] = end - first;
    longest = std::max(longest, end - first);
  }
  const int32_t num_taps = (longest + 3) / 4 * 4;
  taps->weights.assign(static_cast<size_t>(num_out) * num_taps, 0);
  taps->parts.assign(static_cast<size_t>(num_out) * num_taps * 2, 0);
  std::vector<double> exact(longest);
  for (int32_t i = 0; i < num_out; ++i) {
    const double center = begin + (i + 0.5) * scale;
    double sum = 0;
    for (int32_t k = 0; k < taps->count[i]; ++k) {
      exact[k] = weigh(filter, (k + taps->first[i] - center + 0.5) * (1.0 / stretch));
      sum += exact[k];
    }
    int32_t* weights = &taps->weights[static_cast<size_t>(i) * num_taps];
    int16_t* parts = &taps->parts[static_cast<size_t>(i) * num_taps * 2];
    for (int32_t k = 0; k < taps->count[i]; ++k) {
      const double share = sum != 0 ? exact[k] / sum : exact[k];
      weights[k] = static_cast<int32_t>(0.5 + share * (1 << kPrecision));
      parts[k / 4 * 8 + k % 4] = static_cast<int16_t>(weights[k] & kLowMask);
      parts[k / 4 * 8 + 4 + k % 4] = static_cast<int16_t>(weights[k] >> kLowBits);
    }
  }
  taps->num_in = num_in;
  taps->begin = begin;
  taps->length = length;
  taps->num_out = num_out;
  taps->num_taps = num_taps;
  taps->filter = filter;
}

Pixels dense(const uint8_t* data, int32_t width, int32_t height) {
  return {data, static_cast<ptrdiff_t>(width) * 3, width, height};
}

void grow(std::vector<uint8_t>* scratch, int64_t num_pixels) {
  const size_t needed = static_cast<size_t>(num_pixels) * 3 + kReadPast;
  if (scratch->size() < needed) {
    scratch->resize(needed);
  }
}

// Whether Pillow resamples the rows before the columns: from its version 13 on where the height
// loses more than twice what the width loses. Each order rounds in its own way, by 1 at most.
bool takes_rows_first(const Pixels& in, int32_t out_width, int32_t out_height) {
  return out_height < in.height && in.height - out_height > 2 * (in.width - out_width);
}

// Makes black what a view does not fill of its square: memory is used again and again.
void blacken(const ViewBox& view, int32_t side, uint8_t* out) {
  const size_t stride = size_t{3} * side;
  const size_t filled = size_t{3} * view.out_width;
  for (int32_t y = 0; filled < stride && y < view.out_height; ++y) {
    std::memset(out + y * stride + filled, 0, stride - filled);
  }
  std::memset(out + view.out_height * stride, 0, (side - view.out_height) * stride);
}

bool is_size(int32_t width, int32_t height) {
  return width >= 1 && height >= 1 && width <= kMaxSide && height <= kMaxSide &&
         static_cast<int64_t>(width) * height <= kMaxPixels;
}

}  // namespace

bool is_inside(const ViewBox& view, int32_t width, int32_t height, int32_t side) {
  const bool has_middle = view.mid_width != 0 || view.mid_height != 0;
  return view.left >= 0 && view.top >= 0 && view.width >= 1 && view.height >= 1 &&
         view.left <= width - view.width && view.top <= height - view.height &&
         (view.filter == 0 || view.filter == 1) && view.out_width >= 1 && view.out_width <= side &&
         view.out_height >= 1 && view.out_height <= side &&
         (!has_middle || (view.mid_width >= 1 && view.mid_height >= 1));
}

Status Resampler::resize(const Pixels& in, int32_t filter, int32_t out_width, int32_t out_height,
                         uint8_t* out, ptrdiff_t stride) {
  const Window whole = {0, 0, static_cast<double>(in.width), static_cast<double>(in.height)};
  return resize(in, whole, filter, out_width, out_height, out, stride);
}

Status Resampler::resize(const Pixels& in, const Window& window, int32_t filter, int32_t out_width,
                         int32_t out_height, uint8_t* out, ptrdiff_t stride) try {
  if (!is_size(in.width, in.height) || !is_size(out_width, out_height)) {
    return Status::too_large;
  }
  const bool keeps_columns = out_width == in.width && window.left == 0 && window.width == in.width;
  const bool keeps_rows = out_height == in.height && window.top == 0 && window.height == in.height;
  if (!keeps_columns) {
    plan_taps(in.width, window.left, window.width, out_width, filter, &columns_);
  }
  if (!keeps_rows) {
    plan_taps(in.height, window.top, window.height, out_height, filter, &rows_);
  }
  if (keeps_columns && keeps_rows) {
    for (int32_t y = 0; y < out_height; ++y) {
      std::memcpy(out + y * stride, in.data + y * in.stride, size_t{3} * out_width);
    }
  } else if (keeps_rows) {
    resample_columns(in, columns_, simd_, out, stride);
  } else if (keeps_columns) {
    resample_rows(in, rows_, simd_, out, stride);
  } else if (takes_rows_first(in, out_width, out_height)) {
    grow(&between_, int64_t{in.width} * out_height);
    const Pixels between = dense(between_.data(), in.width, out_height);
    resample_rows(in, rows_, simd_, between_.data(), between.stride);
    resample_columns(between, columns_, simd_, out, stride);
  } else {
    if (!is_size(out_width, in.height)) {
      return Status::too_large;
    }
    grow(&between_, int64_t{out_width} * in.height);
    const Pixels between = dense(between_.data(), out_width, in.height);
    resample_columns(in, columns_, simd_, between_.data(), between.stride);
    resample_rows(between, rows_, simd_, out, stride);
  }
  return Status::ok;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

Status Resampler::resize_view(const Pixels& in, const Window& window, const ViewBox& view,
                              int32_t side, uint8_t* out) try {
  const ptrdiff_t stride = ptrdiff_t{3} * side;
  Status status = Status::ok;
  if (view.mid_width == 0) {
    status = resize(in, window, view.filter, view.out_width, view.out_height, out, stride);
  } else if (!is_size(view.mid_width, view.mid_height)) {
    status = Status::too_large;
  } else {
    grow(&middle_, int64_t{view.mid_width} * view.mid_height);
    const Pixels middle = dense(middle_.data(), view.mid_width, view.mid_height);
    status = resize(in, window, view.filter, view.mid_width, view.mid_height, middle_.data(),
                    middle.stride);
    if (status == Status::ok) {
      status = resize(middle, view.filter, view.out_width, view.out_height, out, stride);
    }
  }
  if (status == Status::ok) {
    blacken(view, side, out);
  }
  return status;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

Status Resampler::cut_view(const Pixels& picture, const ViewBox& view, int32_t side, uint8_t* out) {
  if (!is_inside(view, picture.width, picture.height, side)) {
    return Status::corrupt;
  }
  const uint8_t* corner =
      picture.data + view.top * picture.stride + static_cast<ptrdiff_t>(view.left) * 3;
  const Pixels crop = {corner, picture.stride, view.width, view.height};
  const Window whole = {0, 0, static_cast<double>(view.width), static_cast<double>(view.height)};
  return resize_view(crop, whole, view, side, out);
}

}  // namespace fastssl::jpeg
