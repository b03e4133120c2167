// Checks and views that the kernels of every device share.
#pragma once

#include <ATen/ATen.h>

#include <cstdint>
#include <optional>

namespace fastssl {

// A batch of interleaved RGB images whose pixels are dense inside a row; strides in bytes.
struct Images {
  const uint8_t* data;
  int64_t num;
  int64_t height;
  int64_t width;
  int64_t image_stride;
  int64_t row_stride;
};

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

}  // namespace fastssl
