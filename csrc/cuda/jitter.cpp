// color_jitter on CUDA: checks and launch; the kernels stand in jitter_kernels.cu.
#include "jitter.h"

#include <torch/library.h>

#include "cuda/launch.h"

namespace fastssl::cuda {
namespace {

at::Tensor color_jitter(const at::Tensor& images, const at::Tensor& brightness,
                        const at::Tensor& saturation, const at::Tensor& brightness_first,
                        const std::optional<at::Tensor>& flip,
                        const std::optional<at::Tensor>& grey, bool mean_grey, Floats mean,
                        Floats std, bool standardize, at::ScalarType dtype, bool channels_last) {
  const c10::cuda::CUDAGuard guard(images.device());
  if (!has_code_for(images.device())) {
    return call_reference("fastssl::reference_color_jitter", &color_jitter, images, brightness,
                          saturation, brightness_first, flip, grey, mean_grey, mean, std,
                          standardize, dtype, channels_last);
  }
  const JitterArguments arguments(images, brightness, saturation, brightness_first, flip, grey,
                                  mean_grey, mean, std, standardize, dtype);
  const Images& view = arguments.view;
  check_size(view.height, view.width);
  at::Tensor out = arguments.empty_views(dtype, channels_last);
  if (out.numel() == 0) {
    return out;
  }
  at::Tensor workspace;
  if (standardize) {
    workspace = at::empty({view.num, kWorkspaceBytes}, out.options().dtype(at::kByte));
  }
  const Scaling scaling = {mean ? mean->data() : nullptr, std ? std->data() : nullptr,
                           standardize ? workspace.mutable_data_ptr() : nullptr};
  const Output output = {out.mutable_data_ptr(), element_of(dtype), channels_last};
  C10_CUDA_CHECK(paint_images(view, data_or_null<bool>(arguments.flip), arguments.jitter, scaling,
                              output, c10::cuda::getCurrentCUDAStream().stream()));
  return out;
}

}  // namespace
}  // namespace fastssl::cuda

TORCH_LIBRARY_IMPL(fastssl, CUDA, m) { m.impl("color_jitter", &fastssl::cuda::color_jitter); }
