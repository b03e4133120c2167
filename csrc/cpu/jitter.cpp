// Whole views whose colours change: mirror, grey, brightness, saturation, scale, cast and lay out.
// An image is painted once, into floats that stay in the second cache while their mean and
// deviation are found.
#include "jitter.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/pages.h"
#include "cpu/pixels.h"
#include "cpu/rows.h"

// Last, as it says itself.
#include "cpu/lanes.h"

namespace fastssl {
namespace {

// Numbers in the vectors of the widest machine.
constexpr int64_t kLanes = 16;

// What is done to the pixels of one image.
struct Brush {
  float grey[3];  // what each channel counts
  bool is_grey;
  float before;  // added before the saturation changes
  float factor;
  float after;
};

Brush make_brush(const Jitter& jitter, int64_t image) {
  Brush brush = {{kThird, kThird, kThird}, jitter.grey && jitter.grey[image], 0.0f, 0.0f, 0.0f};
  if (!jitter.is_mean) {
    std::copy_n(kLumaOfRgb, 3, brush.grey);
  }
  const float shift = jitter.brightness[image] * 255.0f;
  (jitter.brightness_first[image] ? brush.before : brush.after) = shift;
  brush.factor = jitter.saturation[image];
  return brush;
}

FASTSSL_INLINE float clip(float x) {
  x = x < 0.0f ? 0.0f : x;
  return x > 255.0f ? 255.0f : x;
}

// Each channel keeps its share of the way from the greatest down: that is saturation in HSV.
template <bool kMirrored>
FASTSSL_INLINE void paint_pixels(const uint8_t* row, int64_t num, const Brush& brush,
                                 float* __restrict red, float* __restrict green,
                                 float* __restrict blue) {
  for (int64_t x = 0; x < num; ++x) {
    const int64_t from = kMirrored ? num - 1 - x : x;
    red[x] = static_cast<float>(row[3 * from]);
    green[x] = static_cast<float>(row[3 * from + 1]);
    blue[x] = static_cast<float>(row[3 * from + 2]);
  }
  if (brush.is_grey) {
    for (int64_t x = 0; x < num; ++x) {
      const float value =
          brush.grey[0] * red[x] + brush.grey[1] * green[x] + brush.grey[2] * blue[x];
      red[x] = green[x] = blue[x] = value;
    }
  }
  for (int64_t x = 0; x < num; ++x) {
    const float r = red[x] + brush.before, g = green[x] + brush.before, b = blue[x] + brush.before;
    float most = r > g ? r : g, least = r < g ? r : g;
    most = most > b ? most : b;
    least = least < b ? least : b;
    float depth = most - least;
    depth = depth < kLeastDepth ? kLeastDepth : depth;
    // The saturation stops at 1, where the least of the channels is 0.
    const float greatest_ratio = (most < 0.0f ? 0.0f : most) / depth;
    const float ratio = brush.factor < greatest_ratio ? brush.factor : greatest_ratio;
    red[x] = clip(most - (most - r) * ratio + brush.after);
    green[x] = clip(most - (most - g) * ratio + brush.after);
    blue[x] = clip(most - (most - b) * ratio + brush.after);
  }
}

FASTSSL_INLINE void paint_row_body(const uint8_t* row, int64_t num, bool mirrored,
                                   const Brush& brush, float* red, float* green, float* blue) {
  if (mirrored) {
    paint_pixels<true>(row, num, brush, red, green, blue);
  } else {
    paint_pixels<false>(row, num, brush, red, green, blue);
  }
}

FASTSSL_KERNEL(paint_row,
               (const uint8_t* row, int64_t num, bool mirrored, const Brush& brush, float* red,
                float* green, float* blue),
               (row, num, mirrored, brush, red, green, blue))

// Adds the distances from `centre` and their squares.
FASTSSL_INLINE void add_moments_body(const float* x, int64_t num, float centre, double* sum,
                                     double* sum_of_squares) {
  double sums[kLanes] = {}, squares[kLanes] = {};
  const int64_t whole = num / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const double distance = x[i + lane] - centre;
      sums[lane] += distance;
      squares[lane] += distance * distance;
    }
  }
  for (int64_t i = whole; i < num; ++i) {
    const double distance = x[i] - centre;
    sums[0] += distance;
    squares[0] += distance * distance;
  }
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    *sum += sums[lane];
    *sum_of_squares += squares[lane];
  }
}

FASTSSL_KERNEL(add_moments,
               (const float* x, int64_t num, float centre, double* sum, double* sum_of_squares),
               (x, num, centre, sum, sum_of_squares))

FASTSSL_INLINE void scale_row_body(float* x, int64_t num, float centre, float scale) {
  for (int64_t i = 0; i < num; ++i) {
    x[i] = (x[i] - centre) * scale;
  }
}

FASTSSL_KERNEL(scale_row, (float* x, int64_t num, float centre, float scale),
               (x, num, centre, scale))

// How painted values become the output's: (x - centre) * scale.
struct Scale {
  float centre[3];
  float scale[3];
};

Scale normalizing(at::ArrayRef<double> mean, at::ArrayRef<double> std) {
  Scale result;
  for (int channel = 0; channel < 3; ++channel) {
    result.centre[channel] = static_cast<float>(255.0 * mean[channel]);
    result.scale[channel] = static_cast<float>(1.0 / (255.0 * std[channel]));
  }
  return result;
}

// Zero mean and a deviation of 1 over all values; a flat image becomes zeros.
Scale standardizing(const std::vector<float>& values) {
  const auto count = static_cast<int64_t>(values.size());
  double sum = 0.0, squares = 0.0;
  // Around the first value: of a flat image nothing is left to be rounded.
  add_moments(values.data(), count, values[0], &sum, &squares);
  const double mean = sum / static_cast<double>(count);
  const double variance = squares / static_cast<double>(count) - mean * mean;
  const double least = 1.0 / static_cast<double>(count);
  const auto centre = static_cast<float>(values[0] + mean);
  const auto scale = static_cast<float>(1.0 / std::sqrt(std::max(variance, least)));
  return {{centre, centre, centre}, {scale, scale, scale}};
}

// Paints, scales and writes one image after the other.
template <typename Out>
class Painter {
 public:
  Painter(const Images& images, const bool* flip, const Jitter& jitter,
          const std::optional<Scale>& scale, bool channels_last, Out* out)
      : images_(images),
        flip_(flip),
        jitter_(jitter),
        scale_(scale),
        channels_last_(channels_last),
        out_(out),
        values_(3 * images.width * (scale ? 1 : images.height)) {}

  void run(int64_t image) {
    const Brush brush = make_brush(jitter_, image);
    if (scale_) {
      for (int64_t y = 0; y < images_.height; ++y) {
        paint(image, y, brush, values_.data());
        write(image, y, *scale_, values_.data());
      }
      return;
    }
    for (int64_t y = 0; y < images_.height; ++y) {
      paint(image, y, brush, values_.data() + 3 * y * images_.width);
    }
    const Scale scale = standardizing(values_);
    for (int64_t y = 0; y < images_.height; ++y) {
      write(image, y, scale, values_.data() + 3 * y * images_.width);
    }
  }

 private:
  // A row of R, then one of G, then one of B.
  void paint(int64_t image, int64_t y, const Brush& brush, float* rows) const {
    const int64_t width = images_.width;
    const uint8_t* row = images_.data + image * images_.image_stride + y * images_.row_stride;
    paint_row(row, width, flip_ && flip_[image], brush, rows, rows + width, rows + 2 * width);
  }

  void write(int64_t image, int64_t y, const Scale& scale, float* rows) const {
    const int64_t width = images_.width, height = images_.height;
    for (int64_t channel = 0; channel < 3; ++channel) {
      scale_row(rows + channel * width, width, scale.centre[channel], scale.scale[channel]);
    }
    write_row(rows, height, width, y, channels_last_, out_ + 3 * image * height * width);
  }

  const Images& images_;
  const bool* flip_;
  const Jitter& jitter_;
  const std::optional<Scale>& scale_;
  bool channels_last_;
  Out* out_;
  std::vector<float> values_;
};

at::Tensor color_jitter(const at::Tensor& images, const at::Tensor& brightness,
                        const at::Tensor& saturation, const at::Tensor& brightness_first,
                        const std::optional<at::Tensor>& flip,
                        const std::optional<at::Tensor>& grey, bool mean_grey, Floats mean,
                        Floats std, bool standardize, at::ScalarType dtype, bool channels_last) {
  const JitterArguments arguments(images, brightness, saturation, brightness_first, flip, grey,
                                  mean_grey, mean, std, standardize, dtype);
  at::Tensor out = arguments.empty_views(dtype, channels_last);
  if (out.numel() == 0) {
    return out;
  }
  advise_huge_pages(out);
  std::optional<Scale> scale;
  if (!standardize) {
    scale = normalizing(*mean, *std);
  }
  dispatch_floating(dtype, [&](auto zero) {
    using Out = decltype(zero);
    Out* data = out.mutable_data_ptr<Out>();
    at::parallel_for(0, arguments.view.num, 1, [&](int64_t begin, int64_t end) {
      Painter<Out> painter(arguments.view, data_or_null<bool>(arguments.flip), arguments.jitter,
                           scale, channels_last, data);
      for (int64_t image = begin; image < end; ++image) {
        painter.run(image);
      }
    });
  });
  return out;
}

}  // namespace
}  // namespace fastssl

TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("color_jitter", &fastssl::color_jitter); }
