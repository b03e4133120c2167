// normalize on CUDA: a whole view is one patch. Checks and launch; the kernels stand in pixels.cu.
#include <torch/library.h>

#include "cuda/launch.h"

namespace fastssl::cuda {
namespace {

at::Tensor normalize(const at::Tensor& images, const std::optional<at::Tensor>& flip,
                     const std::optional<at::Tensor>& grey, at::ArrayRef<double> mean,
                     at::ArrayRef<double> std, at::ScalarType dtype, bool channels_last) {
  const c10::cuda::CUDAGuard guard(images.device());
  if (!has_code_for(images.device())) {
    return call_reference("fastssl::reference_normalize", &normalize, images, flip, grey, mean, std,
                          dtype, channels_last);
  }
  const ViewArguments arguments(images, flip, grey, mean, std, dtype);
  const Images& view = arguments.view;
  check_size(view.height, view.width);
  at::Tensor out = arguments.empty_views(dtype, channels_last);
  if (out.numel() == 0) {
    return out;
  }
  const Cut whole = {nullptr,
                     nullptr,
                     data_or_null<bool>(arguments.flip),
                     data_or_null<bool>(arguments.grey),
                     false,
                     1,
                     0};
  const Scaling scaling = {mean.data(), std.data(), nullptr};
  const Output output = {out.mutable_data_ptr(), element_of(dtype), channels_last};
  C10_CUDA_CHECK(map_patches(view, whole, view.height, view.width, view.num, scaling, output,
                             c10::cuda::getCurrentCUDAStream().stream()));
  return out;
}

}  // namespace
}  // namespace fastssl::cuda

TORCH_LIBRARY_IMPL(fastssl, CUDA, m) { m.impl("normalize", &fastssl::cuda::normalize); }
