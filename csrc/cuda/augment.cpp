// augment_views on CUDA: checks and launch; the kernel stands in augment_kernels.cu.
#include "augment.h"

#include <torch/library.h>

#include "cuda/launch.h"

namespace fastssl::cuda {
namespace {

at::Tensor augment_views(const at::Tensor& images, const std::optional<at::Tensor>& gain,
                         const std::optional<at::Tensor>& shift,
                         const std::optional<at::Tensor>& grey,
                         const std::optional<at::Tensor>& flip,
                         const std::optional<at::Tensor>& offset,
                         const std::optional<at::Tensor>& corner, int64_t copies, int64_t cutout,
                         bool is_lab, at::ArrayRef<double> mean, at::ArrayRef<double> std,
                         at::ScalarType dtype, bool channels_last) {
  const c10::cuda::CUDAGuard guard(images.device());
  if (!has_code_for(images.device())) {
    return call_reference("fastssl::reference_augment_views", &augment_views, images, gain, shift,
                          grey, flip, offset, corner, copies, cutout, is_lab, mean, std, dtype,
                          channels_last);
  }
  const AugmentArguments arguments(images, gain, shift, grey, flip, offset, corner, copies, cutout,
                                   is_lab, mean, std, dtype);
  const Images& view = arguments.view;
  check_size(view.height, view.width);
  at::Tensor out = arguments.empty_views(dtype, channels_last);
  if (out.numel() == 0) {
    return out;
  }
  const Output output = {out.mutable_data_ptr(), element_of(dtype), channels_last};
  C10_CUDA_CHECK(augment_images(view, arguments.augmentation, output,
                                c10::cuda::getCurrentCUDAStream().stream()));
  return out;
}

}  // namespace
}  // namespace fastssl::cuda

TORCH_LIBRARY_IMPL(fastssl, CUDA, m) { m.impl("augment_views", &fastssl::cuda::augment_views); }
