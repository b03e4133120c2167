// rgb_to_lab and split_lab on CUDA: checks and launch; the kernels stand in color_kernels.cu.
#include "color.h"

#include <torch/library.h>

#include <tuple>

#include "cuda/launch.h"

namespace fastssl::cuda {
namespace {

at::Tensor rgb_to_lab(const at::Tensor& images_in, bool eight_bit) {
  check_images(images_in);
  const c10::cuda::CUDAGuard guard(images_in.device());
  if (!has_code_for(images_in.device())) {
    return call_reference("fastssl::reference_rgb_to_lab", &rgb_to_lab, images_in, eight_bit);
  }
  const at::Tensor images = with_dense_rows(images_in);
  const Images view = view_images(images);
  at::Tensor out =
      at::empty({view.num, 3, view.height, view.width}, images.options().dtype(at::kFloat));
  if (out.numel() == 0) {
    return out;
  }
  C10_CUDA_CHECK(convert_to_lab(view, eight_bit, out.mutable_data_ptr<float>(),
                                c10::cuda::getCurrentCUDAStream().stream()));
  return out;
}

std::tuple<at::Tensor, at::Tensor> split_lab(const at::Tensor& images,
                                             const std::optional<at::Tensor>& flip, int64_t stride,
                                             bool mean, bool eight_bit, at::ScalarType dtype) {
  const c10::cuda::CUDAGuard guard(images.device());
  if (!has_code_for(images.device())) {
    return call_reference("fastssl::reference_split_lab", &split_lab, images, flip, stride, mean,
                          eight_bit, dtype);
  }
  const SplitArguments arguments(images, flip, stride, mean, eight_bit, dtype);
  auto [light, ab] = arguments.empty_outputs(dtype);
  if (light.numel() == 0) {
    return {light, ab};
  }
  C10_CUDA_CHECK(split_to_lab(arguments.view, arguments.split, light.mutable_data_ptr(),
                              element_of(dtype), ab.mutable_data_ptr<float>(),
                              c10::cuda::getCurrentCUDAStream().stream()));
  return {light, ab};
}

}  // namespace
}  // namespace fastssl::cuda

TORCH_LIBRARY_IMPL(fastssl, CUDA, m) {
  m.impl("rgb_to_lab", &fastssl::cuda::rgb_to_lab);
  m.impl("split_lab", &fastssl::cuda::split_lab);
}
