// The kernel of augment_views; what a thread does stands in augment_kernels.cuh.
#include <algorithm>

#include "cuda/augment_kernels.cuh"
#include "cuda/half_casts.cuh"
#include "cuda/kernels.h"

namespace fastssl::cuda {
namespace {

constexpr int64_t kMaxAugmentBlocks = 0x7FFFFFFF;

template <typename Out, int N, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) augment_kernel(const AugmentJob<Out> job) {
  __shared__ float linear[256];
  for (int value = static_cast<int>(threadIdx.x); value < 256; value += kThreads) {
    linear[value] = linear_of(value);
  }
  __syncthreads();
  const int64_t num_blocks = job.images.num * job.augmentation.copies * job.num_chunks;
  for (int64_t block = blockIdx.x; block < num_blocks; block += gridDim.x) {
    const int64_t slot = block / job.num_chunks;
    const auto chunk = static_cast<uint32_t>(block - slot * job.num_chunks);
    augment_part<Out, N, kInterleaved>(job, linear, slot, chunk, threadIdx.x);
  }
}

template <typename Out, int N, bool kInterleaved>
cudaError_t launch_augment(AugmentJob<Out> job, cudaStream_t stream) {
  job.num_groups = static_cast<uint32_t>(job.images.height * job.images.width / N);
  job.num_chunks = (job.num_groups + kGroupsPerBlock - 1) / kGroupsPerBlock;
  const int64_t blocks = job.images.num * job.augmentation.copies * job.num_chunks;
  const auto grid = static_cast<unsigned int>(std::min(blocks, kMaxAugmentBlocks));
  augment_kernel<Out, N, kInterleaved><<<grid, kThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

// Several pixels at a time where every plane begins at a whole store, else one.
template <typename Out>
cudaError_t augment_as(const Images& images, const Augmentation& augmentation, Out* out,
                       bool interleaved, cudaStream_t stream) {
  const AugmentJob<Out> job = {images, augmentation, 0, 0, out};
  const bool is_aligned = reinterpret_cast<uintptr_t>(out) % 16 == 0;
  if (is_aligned && images.height * images.width % kAugmentPixels == 0) {
    return interleaved ? launch_augment<Out, kAugmentPixels, true>(job, stream)
                       : launch_augment<Out, kAugmentPixels, false>(job, stream);
  }
  return interleaved ? launch_augment<Out, 1, true>(job, stream)
                     : launch_augment<Out, 1, false>(job, stream);
}

}  // namespace

cudaError_t augment_images(const Images& images, const Augmentation& augmentation,
                           const Output& output, cudaStream_t stream) {
  switch (output.element) {
    case Element::kFloat32:
      return augment_as(images, augmentation, static_cast<float*>(output.data), output.interleaved,
                        stream);
    case Element::kFloat16:
      return augment_as(images, augmentation, static_cast<__half*>(output.data), output.interleaved,
                        stream);
    case Element::kBfloat16:
      return augment_as(images, augmentation, static_cast<__nv_bfloat16*>(output.data),
                        output.interleaved, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace fastssl::cuda
