// sRGB to CIE Lab: whole images, or what colorization sees of them and what it predicts.
#include "color.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/lab.h"
#include "cpu/pages.h"
#include "cpu/pixels.h"

// Last, as it says itself.
#include "cpu/lanes.h"

namespace fastssl {
namespace {

// Linear light of the 256 values of sRGB.
std::array<float, 256> build_linear_table() {
  std::array<float, 256> table;
  for (int value = 0; value < 256; ++value) {
    const double x = value / 255.0;
    table[value] = static_cast<float>(x > 0.04045 ? std::pow((x + 0.055) / 1.055, 2.4) : x / 12.92);
  }
  return table;
}

FASTSSL_INLINE float lab_f(float t) {
  const float root = fast_cbrt(t);
  const float line = 7.787f * t + 16.0f / 116.0f;
  return t > 0.008856f ? root : line;
}

FASTSSL_INLINE float mix(const float* weights, float red, float green, float blue) {
  return (weights[0] * red + weights[1] * green) + weights[2] * blue;
}

FASTSSL_INLINE void convert_row_body(const float* __restrict red, const float* __restrict green,
                                     const float* __restrict blue, int64_t num, bool eight_bit,
                                     float* __restrict lightness, float* __restrict a,
                                     float* __restrict b) {
  for (int64_t x = 0; x < num; ++x) {
    const float fx = lab_f(mix(kXyzOfRgb[0], red[x], green[x], blue[x]));
    const float fy = lab_f(mix(kXyzOfRgb[1], red[x], green[x], blue[x]));
    const float fz = lab_f(mix(kXyzOfRgb[2], red[x], green[x], blue[x]));
    lightness[x] = 116.0f * fy - 16.0f;
    a[x] = 500.0f * (fx - fy);
    b[x] = 200.0f * (fy - fz);
  }
  if (eight_bit) {
    for (int64_t x = 0; x < num; ++x) {
      lightness[x] = round_even(lightness[x] * 2.55f) * (100.0f / 255.0f);
      a[x] = round_even(a[x]);
      b[x] = round_even(b[x]);
    }
  }
}

}  // namespace

FASTSSL_KERNEL(convert_row,
               (const float* red, const float* green, const float* blue, int64_t num,
                bool eight_bit, float* lightness, float* a, float* b),
               (red, green, blue, num, eight_bit, lightness, a, b))

void LinearRow::read(const Row& row, int64_t every) {
  static const std::array<float, 256> kLinear = build_linear_table();
  const uint8_t* pixel = row.first;
  const int64_t num = row.num / every, step = row.step * every;
  for (int64_t x = 0; x < num; ++x, pixel += step) {
    red[x] = kLinear[pixel[0]];
    green[x] = kLinear[pixel[1]];
    blue[x] = kLinear[pixel[2]];
  }
}

namespace {

FASTSSL_INLINE void convert_lightness_body(const float* __restrict red,
                                           const float* __restrict green,
                                           const float* __restrict blue, int64_t num,
                                           bool eight_bit, float* __restrict lightness) {
  for (int64_t x = 0; x < num; ++x) {
    lightness[x] = 116.0f * lab_f(mix(kXyzOfRgb[1], red[x], green[x], blue[x])) - 16.0f;
  }
  if (eight_bit) {
    for (int64_t x = 0; x < num; ++x) {
      lightness[x] = round_even(lightness[x] * 2.55f) * (100.0f / 255.0f);
    }
  }
}

FASTSSL_KERNEL(convert_lightness,
               (const float* red, const float* green, const float* blue, int64_t num,
                bool eight_bit, float* lightness),
               (red, green, blue, num, eight_bit, lightness))

at::Tensor rgb_to_lab(const at::Tensor& images_in, bool eight_bit) {
  check_images(images_in);
  const at::Tensor images = with_dense_rows(images_in);
  const Images view = view_images(images);
  const auto options = images.options().dtype(at::kFloat);
  at::Tensor out = at::empty({view.num, 3, view.height, view.width}, options);
  if (out.numel() == 0) {
    return out;
  }
  advise_huge_pages(out);
  float* data = out.mutable_data_ptr<float>();
  const int64_t plane = view.height * view.width;
  const int64_t grain = std::max<int64_t>(1, 8192 / view.width);
  at::parallel_for(0, view.num * view.height, grain, [&](int64_t begin, int64_t end) {
    LinearRow linear(view.width);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t image = index / view.height, y = index % view.height;
      linear.read(cut_row(view, image, y, 0, view.width, false), 1);
      float* row = data + 3 * image * plane + y * view.width;
      convert_row(linear.red.data(), linear.green.data(), linear.blue.data(), view.width, eight_bit,
                  row, row + plane, row + 2 * plane);
    }
  });
  return out;
}

// What turns `stride` rows of an image into lightness and one row of a and b.
struct Band {
  Band(const Images& images, const Split& split)
      : images(images),
        split(split),
        linear(images.width),
        lightness(images.width),
        a(images.width),
        b(images.width) {}

  template <typename Out>
  void run(int64_t image, int64_t band, Out* light, float* out_a, float* out_b) {
    const int64_t width = images.width, columns = width / split.stride;
    const bool mirrored = split.flip && split.flip[image];
    if (split.mean) {
      std::fill_n(out_a, columns, 0.0f);
      std::fill_n(out_b, columns, 0.0f);
    }
    for (int64_t row = 0; row < split.stride; ++row, light += width) {
      const Row pixels = cut_row(images, image, band * split.stride + row, 0, width, mirrored);
      linear.read(pixels, 1);
      if (split.mean) {
        convert_row(linear.red.data(), linear.green.data(), linear.blue.data(), width,
                    split.eight_bit, lightness.data(), a.data(), b.data());
        add_columns(a, out_a, columns);
        add_columns(b, out_b, columns);
      } else {
        convert_lightness(linear.red.data(), linear.green.data(), linear.blue.data(), width,
                          split.eight_bit, lightness.data());
      }
      for (int64_t x = 0; x < width; ++x) {
        light[x] = static_cast<Out>(lightness[x] - kMiddleLightness);
      }
      if (!split.mean && row == 0) {
        linear.read(pixels, split.stride);
        convert_row(linear.red.data(), linear.green.data(), linear.blue.data(), columns,
                    split.eight_bit, lightness.data(), out_a, out_b);
      }
    }
  }

  void add_columns(const std::vector<float>& values, float* out, int64_t columns) const {
    const float share = 1.0f / static_cast<float>(split.stride * split.stride);
    for (int64_t x = 0; x < columns; ++x) {
      float sum = 0.0f;
      for (int64_t k = 0; k < split.stride; ++k) {
        sum += values[x * split.stride + k];
      }
      out[x] += share * sum;
    }
  }

  const Images& images;
  const Split& split;
  LinearRow linear;
  std::vector<float> lightness, a, b;
};

template <typename Out>
void split_bands(const Images& images, const Split& split, Out* light, float* ab) {
  const int64_t rows = images.height / split.stride, columns = images.width / split.stride;
  const int64_t plane = images.height * images.width;
  const int64_t grain = std::max<int64_t>(1, 8192 / (images.width * split.stride));
  at::parallel_for(0, images.num * rows, grain, [&](int64_t begin, int64_t end) {
    Band band(images, split);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t image = index / rows, row = index % rows;
      float* out_a = ab + (2 * image * rows + row) * columns;
      band.run(image, row, light + image * plane + row * split.stride * images.width, out_a,
               out_a + rows * columns);
    }
  });
}

std::tuple<at::Tensor, at::Tensor> split_lab(const at::Tensor& images,
                                             const std::optional<at::Tensor>& flip, int64_t stride,
                                             bool mean, bool eight_bit, at::ScalarType dtype) {
  const SplitArguments arguments(images, flip, stride, mean, eight_bit, dtype);
  auto [light, ab] = arguments.empty_outputs(dtype);
  if (light.numel() == 0) {
    return {light, ab};
  }
  advise_huge_pages(light);
  dispatch_floating(dtype, [&, &light = light, &ab = ab](auto zero) {
    using Out = decltype(zero);
    split_bands<Out>(arguments.view, arguments.split, light.template mutable_data_ptr<Out>(),
                     ab.template mutable_data_ptr<float>());
  });
  return {light, ab};
}

}  // namespace
}  // namespace fastssl

TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("rgb_to_lab", &fastssl::rgb_to_lab);
  m.impl("split_lab", &fastssl::split_lab);
}
