// What the host functions of the colour operators share on every device: checks, arguments.
#pragma once

#include <tuple>

#include "common.h"

namespace fastssl {

// The arguments of split_lab, checked and kept alive.
struct SplitArguments {
  SplitArguments(const at::Tensor& images_in, const std::optional<at::Tensor>& flip_in,
                 int64_t stride, bool mean, bool eight_bit, at::ScalarType dtype) {
    check_images(images_in);
    TORCH_CHECK_VALUE(stride >= 1, "stride must be at least 1, got ", stride);
    TORCH_CHECK_VALUE(images_in.size(1) % stride == 0 && images_in.size(2) % stride == 0,
                      "the sides of images must be multiples of stride (", stride, "), got ",
                      images_in.size(1), " x ", images_in.size(2));
    TORCH_CHECK_VALUE(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
                      "dtype must be float32, float16 or bfloat16, got ", dtype);
    images = with_dense_rows(images_in);
    flip = dense_option(flip_in, "flip", at::kBool, {images.size(0)}, images.device());
    view = view_images(images);
    split = {data_or_null<bool>(flip), stride, mean, eight_bit};
  }

  std::tuple<at::Tensor, at::Tensor> empty_outputs(at::ScalarType dtype) const {
    const auto options = images.options();
    return {at::empty({view.num, 1, view.height, view.width}, options.dtype(dtype)),
            at::empty({view.num, 2, view.height / split.stride, view.width / split.stride},
                      options.dtype(at::kFloat))};
  }

  at::Tensor images, flip;
  Images view;
  Split split;
};

// The arguments of color_loss and of its gradient, checked and kept alive.
struct LossArguments {
  LossArguments(const at::Tensor& logits_in, const at::Tensor& ab_in, const at::Tensor& bins_in,
                const at::Tensor& offsets_in, const at::Tensor& candidates_in,
                const std::optional<at::Tensor>& weights_in,
                const std::optional<at::Tensor>& counted_in, int64_t num_neighbors, double sigma) {
    TORCH_CHECK_VALUE(logits_in.dim() == 4, "logits must be (B, Q, H, W), got shape ",
                      logits_in.sizes());
    const auto dtype = logits_in.scalar_type();
    TORCH_CHECK_VALUE(dtype == at::kFloat || dtype == at::kHalf || dtype == at::kBFloat16,
                      "logits must be float32, float16 or bfloat16, got ", dtype);
    const int64_t num = logits_in.size(0), bin_count = logits_in.size(1);
    const int64_t height = logits_in.size(2), width = logits_in.size(3);
    const at::Device device = logits_in.device();
    const bool is_last =
        logits_in.is_contiguous(at::MemoryFormat::ChannelsLast) && !logits_in.is_contiguous();
    logits = is_last ? logits_in : logits_in.contiguous();
    ab = dense_option(ab_in, "ab", at::kFloat, {num, 2, height, width}, device);
    bins = dense_option(bins_in, "bins", at::kFloat, {bin_count, 2}, device);
    offsets = dense_option(offsets_in, "offsets", at::kInt, {kCells * kCells + 1}, device);
    candidates =
        dense_option(candidates_in, "candidates", at::kShort, {candidates_in.numel()}, device);
    weights = dense_option(weights_in, "weights", at::kFloat, {bin_count}, device);
    counted = dense_option(counted_in, "counted", at::kBool, {num}, device);
    TORCH_CHECK_VALUE(num_neighbors >= 1 && num_neighbors <= bin_count,
                      "num_neighbors must lie in 1 .. ", bin_count, ", got ", num_neighbors);
    TORCH_CHECK_VALUE(sigma > 0, "sigma must be above 0, got ", sigma);
    code = {bins.const_data_ptr<float>(),
            data_or_null<float>(weights),
            offsets.const_data_ptr<int32_t>(),
            candidates.const_data_ptr<int16_t>(),
            bin_count,
            num_neighbors,
            static_cast<float>(-0.5 / (sigma * sigma))};
    const int64_t pixels = height * width;
    layout = {num, pixels, is_last ? 1 : pixels, is_last ? bin_count : 1};
  }

  // A number for each pixel: (B, H, W).
  at::Tensor empty_pixels() const {
    return at::empty(
        {logits.size(0), logits.size(2), logits.size(3)},
        logits.options().dtype(at::kFloat).memory_format(at::MemoryFormat::Contiguous));
  }

  at::Tensor check_pixels(const at::Tensor& tensor, const char* name) const {
    const at::DimVector shape = {logits.size(0), logits.size(2), logits.size(3)};
    return dense_option(tensor, name, at::kFloat, shape, logits.device());
  }

  at::Tensor logits, ab, bins, offsets, candidates, weights, counted;
  ColorCode code;
  Logits layout;
};

}  // namespace fastssl
