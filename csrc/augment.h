// What the host functions of augment_views share on every device: checks, arguments.
#pragma once

#include "common.h"

namespace fastssl {

// The arguments of augment_views, checked and kept alive.
struct AugmentArguments {
  AugmentArguments(const at::Tensor& images_in, const std::optional<at::Tensor>& gain_in,
                   const std::optional<at::Tensor>& shift_in,
                   const std::optional<at::Tensor>& grey_in,
                   const std::optional<at::Tensor>& flip_in,
                   const std::optional<at::Tensor>& offset_in,
                   const std::optional<at::Tensor>& corner_in, int64_t copies, int64_t cutout,
                   bool is_lab, at::ArrayRef<double> mean, at::ArrayRef<double> std,
                   at::ScalarType dtype) {
    check_images(images_in);
    check_mean_and_std(mean, std);
    TORCH_CHECK_VALUE(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
                      "dtype must be float32, float16 or bfloat16, got ", dtype);
    TORCH_CHECK_VALUE(copies >= 1, "copies must be at least 1, got ", copies);
    TORCH_CHECK_VALUE(cutout >= 0, "cutout must be 0 or a side in pixels, got ", cutout);
    TORCH_CHECK_VALUE(gain_in.has_value() == shift_in.has_value(),
                      "gain and shift must be given together");
    images = with_dense_rows(images_in);
    const int64_t num = images.size(0);
    const at::Device device = images.device();
    gain = dense_option(gain_in, "gain", at::kFloat, {num, copies, 3}, device);
    shift = dense_option(shift_in, "shift", at::kFloat, {num, copies, 3}, device);
    grey = dense_option(grey_in, "grey", at::kBool, {num, copies}, device);
    flip = dense_option(flip_in, "flip", at::kBool, {num, copies}, device);
    offset = dense_option(offset_in, "offset", at::kInt, {num, copies, 2}, device);
    corner = dense_option(corner_in, "corner", at::kInt, {num, copies, 2}, device);
    view = view_images(images);
    augmentation = {data_or_null<float>(gain),
                    data_or_null<float>(shift),
                    data_or_null<bool>(grey),
                    data_or_null<bool>(flip),
                    data_or_null<int32_t>(offset),
                    data_or_null<int32_t>(corner),
                    copies,
                    corner.defined() ? cutout : 0,
                    is_lab,
                    {},
                    {}};
    // Mean and deviation of R, G, B are in units of 0 .. 1, pixels are not.
    const double unit = is_lab ? 1.0 : 255.0;
    for (int channel = 0; channel < 3; ++channel) {
      augmentation.centre[channel] = static_cast<float>(unit * mean[channel]);
      augmentation.scale[channel] = static_cast<float>(1.0 / (unit * std[channel]));
    }
  }

  at::Tensor empty_views(at::ScalarType dtype, bool channels_last) const {
    const auto options = images.options().dtype(dtype);
    const int64_t copies = augmentation.copies;
    if (channels_last) {
      return at::empty({view.num, copies, view.height, view.width, 3}, options)
          .permute({0, 1, 4, 2, 3});
    }
    return at::empty({view.num, copies, 3, view.height, view.width}, options);
  }

  at::Tensor images, gain, shift, grey, flip, offset, corner;
  Images view;
  Augmentation augmentation;
};

}  // namespace fastssl
