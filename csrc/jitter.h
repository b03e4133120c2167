// What the host functions of color_jitter share on every device: checks, arguments.
#pragma once

#include "common.h"

namespace fastssl {

// The arguments of color_jitter, checked and kept alive.
struct JitterArguments {
  JitterArguments(const at::Tensor& images_in, const at::Tensor& brightness_in,
                  const at::Tensor& saturation_in, const at::Tensor& brightness_first_in,
                  const std::optional<at::Tensor>& flip_in,
                  const std::optional<at::Tensor>& grey_in, bool mean_grey, const Floats& mean,
                  const Floats& std, bool standardize, at::ScalarType dtype) {
    check_images(images_in);
    TORCH_CHECK_VALUE(dtype != at::kByte, "dtype must be float32, float16 or bfloat16, got ",
                      dtype);
    check_options(mean, std, standardize, dtype);
    const at::Device device = images_in.device();
    const at::DimVector shape = {images_in.size(0)};
    images = with_dense_rows(images_in);
    brightness = dense_option(brightness_in, "brightness", at::kFloat, shape, device);
    saturation = dense_option(saturation_in, "saturation", at::kFloat, shape, device);
    brightness_first =
        dense_option(brightness_first_in, "brightness_first", at::kBool, shape, device);
    flip = dense_option(flip_in, "flip", at::kBool, shape, device);
    grey = dense_option(grey_in, "grey", at::kBool, shape, device);
    view = view_images(images);
    jitter = {data_or_null<bool>(grey), mean_grey, brightness.const_data_ptr<float>(),
              saturation.const_data_ptr<float>(), brightness_first.const_data_ptr<bool>()};
  }

  at::Tensor empty_views(at::ScalarType dtype, bool channels_last) const {
    const auto options = images.options().dtype(dtype);
    if (channels_last) {
      return at::empty({view.num, view.height, view.width, 3}, options).permute({0, 3, 1, 2});
    }
    return at::empty({view.num, 3, view.height, view.width}, options);
  }

  at::Tensor images, brightness, saturation, brightness_first, flip, grey;
  Images view;
  Jitter jitter;
};

}  // namespace fastssl
