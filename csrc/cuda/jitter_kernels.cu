// The kernels of color_jitter; what a thread does stands in jitter_kernels.cuh.
#include <algorithm>

#include "cuda/half_casts.cuh"
#include "cuda/jitter_kernels.cuh"
#include "cuda/kernels.h"

namespace fastssl::cuda {
namespace {

constexpr int kSumThreads = 256;
constexpr int64_t kMaxPaintBlocks = 0x7FFFFFFF;

static_assert(sizeof(Coefficients) == kWorkspaceBytes);

unsigned int paint_grid(int64_t blocks) {
  return static_cast<unsigned int>(std::min(blocks, kMaxPaintBlocks));
}

// One block an image: its mean and deviation as coefficients, always summed in the same order.
__global__ void __launch_bounds__(kSumThreads)
    moments_kernel(const Geometry geometry, const Jitter jitter, Coefficients* __restrict__ out) {
  __shared__ PaintedSums parts[kSumThreads];
  for (int64_t image = blockIdx.x; image < geometry.num_slots; image += gridDim.x) {
    parts[threadIdx.x] = sum_painted(geometry, jitter, image, threadIdx.x, kSumThreads);
    __syncthreads();
    for (int half = kSumThreads / 2; half > 0; half /= 2) {
      if (threadIdx.x < half) {
        parts[threadIdx.x].add(parts[threadIdx.x + half]);
      }
      __syncthreads();
    }
    if (threadIdx.x == 0) {
      out[image] = standardizing_painted(parts[0], geometry.height * geometry.width);
    }
    __syncthreads();  // the next image uses the same memory
  }
}

template <typename Out, int N, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) paint_kernel(const PaintJob<Out> job) {
  const int64_t num_blocks = job.geometry.num_slots * job.num_chunks;
  for (int64_t block = blockIdx.x; block < num_blocks; block += gridDim.x) {
    const int64_t image = block / job.num_chunks;
    const auto chunk = static_cast<uint32_t>(block - image * job.num_chunks);
    paint_part<Out, N, kInterleaved>(job, image, chunk, threadIdx.x);
  }
}

template <typename Out, int N, bool kInterleaved>
cudaError_t launch_paint(PaintJob<Out> job, cudaStream_t stream) {
  job.num_groups = job.geometry.height * job.geometry.width / N;
  job.num_chunks = (job.num_groups + kGroupsPerBlock - 1) / kGroupsPerBlock;
  const unsigned int grid = paint_grid(job.geometry.num_slots * job.num_chunks);
  paint_kernel<Out, N, kInterleaved><<<grid, kThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

// Several pixels at a time where every plane begins at a whole store, else one.
template <typename Out, bool kInterleaved>
cudaError_t launch_widest_paint(const PaintJob<Out>& job, cudaStream_t stream) {
  const bool is_aligned = reinterpret_cast<uintptr_t>(job.out) % 16 == 0;
  if (is_aligned && job.geometry.height * job.geometry.width % kPaintPixels == 0) {
    return launch_paint<Out, kPaintPixels, kInterleaved>(job, stream);
  }
  return launch_paint<Out, 1, kInterleaved>(job, stream);
}

template <typename Out>
cudaError_t paint_as(const Geometry& geometry, const Jitter& jitter, const Scaling& scaling,
                     Out* out, bool interleaved, cudaStream_t stream) {
  PaintJob<Out> job = {geometry, jitter, 0, 0, {}, nullptr, out};
  if (scaling.workspace == nullptr) {
    for (int channel = 0; channel < 3; ++channel) {
      job.channels[channel] = normalizing(scaling.mean[channel], scaling.std[channel]);
    }
  } else {
    auto* by_image = static_cast<Coefficients*>(scaling.workspace);
    job.by_image = by_image;
    const unsigned int grid = paint_grid(geometry.num_slots);
    moments_kernel<<<grid, kSumThreads, 0, stream>>>(geometry, jitter, by_image);
    const cudaError_t error = cudaGetLastError();
    if (error != cudaSuccess) {
      return error;
    }
  }
  return interleaved ? launch_widest_paint<Out, true>(job, stream)
                     : launch_widest_paint<Out, false>(job, stream);
}

}  // namespace

cudaError_t paint_images(const Images& images, const bool* flip, const Jitter& jitter,
                         const Scaling& scaling, const Output& output, cudaStream_t stream) {
  const Cut whole = {nullptr, nullptr, flip, nullptr, false, 1, 0};
  const Geometry geometry = {images, whole, static_cast<uint32_t>(images.height),
                             static_cast<uint32_t>(images.width), images.num};
  switch (output.element) {
    case Element::kFloat32:
      return paint_as(geometry, jitter, scaling, static_cast<float*>(output.data),
                      output.interleaved, stream);
    case Element::kFloat16:
      return paint_as(geometry, jitter, scaling, static_cast<__half*>(output.data),
                      output.interleaved, stream);
    case Element::kBfloat16:
      return paint_as(geometry, jitter, scaling, static_cast<__nv_bfloat16*>(output.data),
                      output.interleaved, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace fastssl::cuda
