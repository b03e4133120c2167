// extract_patches on CUDA: checks and launch; the kernels stand in pixels.cu.
#include <torch/library.h>

#include "cuda/launch.h"

namespace fastssl::cuda {
namespace {

at::Tensor extract_patches(const at::Tensor& images, const at::Tensor& corners, int64_t size,
                           const std::optional<at::Tensor>& flip,
                           const std::optional<at::Tensor>& grey,
                           const std::optional<at::Tensor>& order, Floats mean, Floats std,
                           bool standardize, at::ScalarType dtype, bool channels_last) {
  check_options(mean, std, standardize, dtype);
  const c10::cuda::CUDAGuard guard(images.device());
  if (!has_code_for(images.device())) {
    return call_reference("fastssl::reference_extract_patches", &extract_patches, images, corners,
                          size, flip, grey, order, mean, std, standardize, dtype, channels_last);
  }
  const CutArguments arguments(images, corners, size, flip, grey, order);
  check_size(size, size);
  at::Tensor out = arguments.empty_patches(dtype, channels_last);
  if (out.numel() == 0) {
    return out;
  }
  const int64_t num_slots = arguments.view.num * arguments.cut.num_patches;
  at::Tensor workspace;
  if (standardize) {
    workspace = at::empty({num_slots, kWorkspaceBytes}, out.options().dtype(at::kByte));
  }
  const Scaling scaling = {mean ? mean->data() : nullptr, std ? std->data() : nullptr,
                           standardize ? workspace.mutable_data_ptr() : nullptr};
  const Output output = {out.mutable_data_ptr(), element_of(dtype), channels_last};
  C10_CUDA_CHECK(map_patches(arguments.view, arguments.cut, size, size, num_slots, scaling, output,
                             c10::cuda::getCurrentCUDAStream().stream()));
  return out;
}

}  // namespace
}  // namespace fastssl::cuda

TORCH_LIBRARY_IMPL(fastssl, CUDA, m) { m.impl("extract_patches", &fastssl::cuda::extract_patches); }
