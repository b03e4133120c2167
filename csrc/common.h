// Checks and views that the kernels of every device share.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>

#include "layout.h"

namespace fastssl {

inline void check_images(const at::Tensor& images) {
  TORCH_CHECK_VALUE(images.dim() == 4 && images.size(3) == 3,
                    "images must be (B, H, W, 3), got shape ", images.sizes());
  TORCH_CHECK_VALUE(images.scalar_type() == at::kByte, "images must be uint8, got ",
                    images.scalar_type());
}

// Rows and images may be strided (crops, one of several views); the pixels of a row may not.
inline at::Tensor with_dense_rows(const at::Tensor& images) {
  const bool dense = images.stride(3) == 1 && images.stride(2) == 3;
  return dense ? images : images.contiguous();
}

inline Images view_images(const at::Tensor& images) {
  return {images.const_data_ptr<uint8_t>(),
          images.size(0),
          images.size(1),
          images.size(2),
          images.stride(0),
          images.stride(1)};
}

// Checks an optional tensor of flags or indices and makes it dense.
inline at::Tensor dense_option(const std::optional<at::Tensor>& option, const char* name,
                               at::ScalarType dtype, at::IntArrayRef shape, at::Device device) {
  if (!option.has_value()) {
    return {};
  }
  TORCH_CHECK_VALUE(option->sizes() == shape, name, " must have shape ", shape, ", got ",
                    option->sizes());
  TORCH_CHECK_VALUE(option->scalar_type() == dtype, name, " must be ", dtype, ", got ",
                    option->scalar_type());
  TORCH_CHECK_VALUE(option->device() == device, name, " must be on ", device, " like images, got ",
                    option->device());
  return option->contiguous();
}

// The dense data of an option, or null.
template <typename T>
const T* data_or_null(const at::Tensor& option) {
  return option.defined() ? option.const_data_ptr<T>() : nullptr;
}

inline void check_mean_and_std(at::ArrayRef<double> mean, at::ArrayRef<double> std) {
  TORCH_CHECK_VALUE(mean.size() == 3 && std.size() == 3,
                    "mean and std must hold one value for each of R, G, B, got ", mean.size(),
                    " and ", std.size());
  for (const double value : std) {
    TORCH_CHECK_VALUE(value > 0, "std must be above 0, got ", std);
  }
}

using Floats = std::optional<at::ArrayRef<double>>;

inline void check_options(const Floats& mean, const Floats& std, bool standardize,
                          at::ScalarType dtype) {
  const bool is_float = dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16;
  TORCH_CHECK_VALUE(is_float || dtype == at::kByte,
                    "dtype must be uint8, float32, float16 or bfloat16, got ", dtype);
  TORCH_CHECK_VALUE(mean.has_value() == std.has_value(), "mean and std must be given together");
  TORCH_CHECK_VALUE(!(mean.has_value() && standardize),
                    "mean and std must be None where standardize is True");
  TORCH_CHECK_VALUE(is_float == (mean.has_value() || standardize),
                    "mean and std or standardize go with a floating dtype, got ", dtype);
  if (mean.has_value()) {
    check_mean_and_std(*mean, *std);
  }
}

// The arguments of a cut, checked but for the values inside the tensors, and kept alive.
struct CutArguments {
  CutArguments(const at::Tensor& images_in, const at::Tensor& corners_in, int64_t size,
               const std::optional<at::Tensor>& flip_in, const std::optional<at::Tensor>& grey_in,
               const std::optional<at::Tensor>& order_in) {
    check_images(images_in);
    TORCH_CHECK_VALUE(size >= 1, "size must be at least 1, got ", size);
    TORCH_CHECK_VALUE(corners_in.dim() == 3, "corners must be (B, P, 2), got shape ",
                      corners_in.sizes());
    images = with_dense_rows(images_in);
    const at::Device device = images.device();
    const int64_t num = images.size(0), patches = corners_in.size(1);
    const bool by_patch = grey_in.has_value() && grey_in->dim() == 2;
    const at::DimVector grey_shape = by_patch ? at::DimVector{num, patches} : at::DimVector{num};
    corners = dense_option(corners_in, "corners", at::kInt, {num, patches, 2}, device);
    flip = dense_option(flip_in, "flip", at::kBool, {num}, device);
    grey = dense_option(grey_in, "grey", at::kBool, grey_shape, device);
    order = dense_option(order_in, "order", at::kLong, {num, patches}, device);
    view = view_images(images);
    cut = {corners.const_data_ptr<int32_t>(),
           data_or_null<int64_t>(order),
           data_or_null<bool>(flip),
           data_or_null<bool>(grey),
           by_patch,
           patches,
           size};
  }

  at::Tensor empty_patches(at::ScalarType dtype, bool channels_last) const {
    const auto options = images.options().dtype(dtype);
    const int64_t num = images.size(0), size = cut.size;
    if (dtype == at::kByte) {
      return at::empty({num, cut.num_patches, size, size, 3}, options);
    }
    if (channels_last) {
      return at::empty({num, cut.num_patches, size, size, 3}, options).permute({0, 1, 4, 2, 3});
    }
    return at::empty({num, cut.num_patches, 3, size, size}, options);
  }

  at::Tensor images, corners, flip, grey, order;
  Images view;
  Cut cut;
};

// The arguments of normalize, likewise.
struct ViewArguments {
  ViewArguments(const at::Tensor& images_in, const std::optional<at::Tensor>& flip_in,
                const std::optional<at::Tensor>& grey_in, at::ArrayRef<double> mean,
                at::ArrayRef<double> std, at::ScalarType dtype) {
    check_images(images_in);
    check_mean_and_std(mean, std);
    TORCH_CHECK_VALUE(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
                      "dtype must be float32, float16 or bfloat16, got ", dtype);
    images = with_dense_rows(images_in);
    const int64_t num = images.size(0);
    flip = dense_option(flip_in, "flip", at::kBool, {num}, images.device());
    grey = dense_option(grey_in, "grey", at::kBool, {num}, images.device());
    view = view_images(images);
  }

  at::Tensor empty_views(at::ScalarType dtype, bool channels_last) const {
    const auto options = images.options().dtype(dtype);
    if (channels_last) {
      return at::empty({view.num, view.height, view.width, 3}, options).permute({0, 3, 1, 2});
    }
    return at::empty({view.num, 3, view.height, view.width}, options);
  }

  at::Tensor images, flip, grey;
  Images view;
};

}  // namespace fastssl
