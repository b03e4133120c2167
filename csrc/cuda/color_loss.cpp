// The colour loss and its gradient on CUDA: checks and launch; the kernels stand in
// color_kernels.cu.
#include <torch/library.h>

#include <tuple>

#include "color.h"
#include "cuda/launch.h"

namespace fastssl::cuda {
namespace {

LossInput describe(const LossArguments& arguments) {
  return {arguments.code,
          arguments.layout,
          arguments.logits.const_data_ptr(),
          element_of(arguments.logits.scalar_type()),
          arguments.ab.const_data_ptr<float>(),
          data_or_null<bool>(arguments.counted)};
}

std::tuple<at::Tensor, at::Tensor> color_loss(const at::Tensor& logits, const at::Tensor& ab,
                                              const at::Tensor& bins, const at::Tensor& offsets,
                                              const at::Tensor& candidates,
                                              const std::optional<at::Tensor>& weights,
                                              const std::optional<at::Tensor>& counted,
                                              int64_t num_neighbors, double sigma) {
  const c10::cuda::CUDAGuard guard(logits.device());
  if (!has_code_for(logits.device())) {
    return call_reference("fastssl::reference_color_loss", &color_loss, logits, ab, bins, offsets,
                          candidates, weights, counted, num_neighbors, sigma);
  }
  const LossArguments arguments(logits, ab, bins, offsets, candidates, weights, counted,
                                num_neighbors, sigma);
  at::Tensor losses = arguments.empty_pixels(), log_sums = arguments.empty_pixels();
  if (losses.numel() == 0) {
    return {losses, log_sums};
  }
  const LossOutput output = {losses.mutable_data_ptr<float>(), log_sums.mutable_data_ptr<float>(),
                             nullptr, nullptr, nullptr};
  C10_CUDA_CHECK(
      find_color_loss(describe(arguments), output, c10::cuda::getCurrentCUDAStream().stream()));
  return {losses, log_sums};
}

at::Tensor color_loss_backward(const at::Tensor& grads_in, const at::Tensor& log_sums_in,
                               const at::Tensor& logits, const at::Tensor& ab,
                               const at::Tensor& bins, const at::Tensor& offsets,
                               const at::Tensor& candidates,
                               const std::optional<at::Tensor>& weights,
                               const std::optional<at::Tensor>& counted, int64_t num_neighbors,
                               double sigma) {
  const c10::cuda::CUDAGuard guard(logits.device());
  if (!has_code_for(logits.device())) {
    return call_reference("fastssl::reference_color_loss_backward", &color_loss_backward, grads_in,
                          log_sums_in, logits, ab, bins, offsets, candidates, weights, counted,
                          num_neighbors, sigma);
  }
  const LossArguments arguments(logits, ab, bins, offsets, candidates, weights, counted,
                                num_neighbors, sigma);
  const at::Tensor grads = arguments.check_pixels(grads_in, "grads");
  const at::Tensor log_sums = arguments.check_pixels(log_sums_in, "log_sums");
  at::Tensor out = at::empty_like(arguments.logits);
  if (out.numel() == 0) {
    return out;
  }
  const LossOutput output = {nullptr, nullptr, grads.const_data_ptr<float>(),
                             log_sums.const_data_ptr<float>(), out.mutable_data_ptr()};
  C10_CUDA_CHECK(
      find_color_loss(describe(arguments), output, c10::cuda::getCurrentCUDAStream().stream()));
  return out;
}

}  // namespace
}  // namespace fastssl::cuda

TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("color_loss", &fastssl::cuda::color_loss);
  m.impl("color_loss_backward", &fastssl::cuda::color_loss_backward);
}
