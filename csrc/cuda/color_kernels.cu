// The kernels of the colour operators; what a thread does stands in color_kernels.cuh.
#include <algorithm>

#include "cuda/color_kernels.cuh"
#include "cuda/half_casts.cuh"
#include "cuda/kernels.h"

namespace fastssl::cuda {

namespace {

constexpr int kColorThreads = 256;
constexpr int64_t kMaxColorBlocks = 0x7FFFFFFF;

// The table that turns 8 bits into linear light, made anew by every block.
__device__ void fill_linear(float* linear) {
  static_assert(kColorThreads == 256, "one entry a thread");
  linear[threadIdx.x] = linear_of(static_cast<int>(threadIdx.x));
  __syncthreads();
}

__global__ void __launch_bounds__(kColorThreads)
    lab_kernel(const Images images, bool eight_bit, int64_t num, float* __restrict__ out) {
  __shared__ float linear[256];
  fill_linear(linear);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kColorThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kColorThreads + threadIdx.x; i < num;
       i += step) {
    convert_pixel(images, linear, eight_bit, i, out);
  }
}

template <typename Out>
__global__ void __launch_bounds__(kColorThreads)
    split_kernel(const SplitJob<Out> job, int64_t num) {
  __shared__ float linear[256];
  fill_linear(linear);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kColorThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kColorThreads + threadIdx.x; i < num;
       i += step) {
    split_cell(job, linear, i);
  }
}

// Threads that follow each other have pixels that follow each other where these lie side by side,
// else bins that do.
template <typename T, bool kBackward, bool kIsPlanar>
__global__ void __launch_bounds__(kColorThreads) loss_kernel(const LossJob<T> job) {
  constexpr int kPixels = kIsPlanar ? 32 : 8, kSlices = kColorThreads / kPixels;
  __shared__ Last lasts[kPixels][kSlices];
  __shared__ LogSum log_sums[kPixels][kSlices];
  __shared__ Shares parts[kPixels][kSlices];
  const int in_block = kIsPlanar ? threadIdx.x % kPixels : threadIdx.x / kSlices;
  const int slice = kIsPlanar ? threadIdx.x / kPixels : threadIdx.x % kSlices;
  const int64_t per_image = (job.layout.num_pixels + kPixels - 1) / kPixels;
  const int64_t num_blocks = per_image * job.layout.num_images;
  for (int64_t block = blockIdx.x; block < num_blocks; block += gridDim.x) {
    const int64_t image = block / per_image;
    const Pixel<T> pixel(job, image, (block - image * per_image) * kPixels + in_block);
    lasts[in_block][slice] = pixel.find_last(slice, kSlices);
    if constexpr (!kBackward) {
      log_sums[in_block][slice] = pixel.find_log_sum(slice, kSlices);
    }
    __syncthreads();
    Last last = lasts[in_block][0];
    for (int k = 1; k < kSlices; ++k) {
      last = later(last, lasts[in_block][k]);
    }
    parts[in_block][slice] = pixel.find_shares(last, slice, kSlices, !kBackward);
    __syncthreads();
    Shares shares = {0.0f, 0.0f};
    for (int k = 0; k < kSlices; ++k) {
      shares.add(parts[in_block][k]);
    }
    if constexpr (kBackward) {
      pixel.write_grad(last, shares, slice, kSlices);
    } else if (slice == 0) {
      LogSum log_sum = LogSum::of_nothing();
      for (int k = 0; k < kSlices; ++k) {
        log_sum.add(log_sums[in_block][k]);
      }
      pixel.write_loss(log_sum, shares);
    }
    __syncthreads();  // the next pixels use the same memory
  }
}

unsigned int color_grid(int64_t blocks) {
  return static_cast<unsigned int>(std::min(blocks, kMaxColorBlocks));
}

template <typename Out>
cudaError_t launch_split(const Images& images, const Split& split, void* light, float* ab,
                         cudaStream_t stream) {
  const int64_t cells = images.height / split.stride * (images.width / split.stride) * images.num;
  const SplitJob<Out> job = {images, split, static_cast<Out*>(light), ab};
  const unsigned int grid = color_grid((cells + kColorThreads - 1) / kColorThreads);
  split_kernel<<<grid, kColorThreads, 0, stream>>>(job, cells);
  return cudaGetLastError();
}

template <typename T, bool kBackward, bool kIsPlanar>
cudaError_t launch_layout(const LossJob<T>& job, cudaStream_t stream) {
  constexpr int kPixels = kIsPlanar ? 32 : 8;
  const int64_t blocks = (job.layout.num_pixels + kPixels - 1) / kPixels * job.layout.num_images;
  loss_kernel<T, kBackward, kIsPlanar><<<color_grid(blocks), kColorThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

template <typename T>
cudaError_t launch_loss(const LossInput& input, const LossOutput& output, cudaStream_t stream) {
  const LossJob<T> job = {input.code,
                          input.layout,
                          static_cast<const T*>(input.logits),
                          input.ab,
                          input.counted,
                          output.losses,
                          output.log_sums,
                          output.grads,
                          output.kept_log_sums,
                          static_cast<T*>(output.grad)};
  const bool is_planar = input.layout.pixel_stride == 1;
  if (output.grad != nullptr) {
    return is_planar ? launch_layout<T, true, true>(job, stream)
                     : launch_layout<T, true, false>(job, stream);
  }
  return is_planar ? launch_layout<T, false, true>(job, stream)
                   : launch_layout<T, false, false>(job, stream);
}

}  // namespace

cudaError_t convert_to_lab(const Images& images, bool eight_bit, float* out, cudaStream_t stream) {
  const int64_t num = images.num * images.height * images.width;
  const unsigned int grid = color_grid((num + kColorThreads - 1) / kColorThreads);
  lab_kernel<<<grid, kColorThreads, 0, stream>>>(images, eight_bit, num, out);
  return cudaGetLastError();
}

cudaError_t split_to_lab(const Images& images, const Split& split, void* light, Element element,
                         float* ab, cudaStream_t stream) {
  switch (element) {
    case Element::kFloat32:
      return launch_split<float>(images, split, light, ab, stream);
    case Element::kFloat16:
      return launch_split<__half>(images, split, light, ab, stream);
    case Element::kBfloat16:
      return launch_split<__nv_bfloat16>(images, split, light, ab, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

cudaError_t find_color_loss(const LossInput& input, const LossOutput& output, cudaStream_t stream) {
  switch (input.element) {
    case Element::kFloat32:
      return launch_loss<float>(input, output, stream);
    case Element::kFloat16:
      return launch_loss<__half>(input, output, stream);
    case Element::kBfloat16:
      return launch_loss<__nv_bfloat16>(input, output, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace fastssl::cuda
