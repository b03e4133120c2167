// The kernels of both operators: one pass over the pixels, and one before it where a patch is
// standardised.

// A release build of some toolchains defines it, and the border check is an assertion.
#undef NDEBUG
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cassert>

#include "cuda/kernels.h"
#include "cuda/pixels.cuh"

namespace fastssl::cuda {

template <>
struct Convert<__half> {
  static FASTSSL_HD __half run(uint32_t value, const Coefficients& c) {
    return __float2half_rn(apply(value, c));
  }
};

template <>
struct Convert<__nv_bfloat16> {
  static FASTSSL_HD __nv_bfloat16 run(uint32_t value, const Coefficients& c) {
    return __float2bfloat16_rn(apply(value, c));
  }
};

namespace {

constexpr int kSumThreads = 256;
constexpr int kWarp = 32;
constexpr int64_t kMaxBlocks = 0x7FFFFFFF;

static_assert(sizeof(Coefficients) == kWorkspaceBytes);

// Values are checked here and not on the host: looking at them there would stop the stream.
__device__ void require(bool is_valid) {
  assert(is_valid && "fastssl: a patch crosses the border of its image, or order points outside");
}

template <typename Out, int N, bool kInterleaved>
__global__ void __launch_bounds__(kThreads) map_kernel(const Job<Out> job) {
  const int64_t num_blocks = job.geometry.num_slots * job.num_chunks;
  for (int64_t block = blockIdx.x; block < num_blocks; block += gridDim.x) {
    const int64_t slot = block / job.num_chunks;
    const auto chunk = static_cast<uint32_t>(block - slot * job.num_chunks);
    if constexpr (kInterleaved) {
      require(map_interleaved<Out, N>(job, slot, chunk, threadIdx.x));
    } else {
      require(map_planar<Out, N>(job, slot, chunk, threadIdx.x));
    }
  }
}

__device__ Sums add_over_warp(Sums sums) {
  for (int distance = kWarp / 2; distance > 0; distance /= 2) {
    sums.values += __shfl_down_sync(0xFFFFFFFFu, sums.values, distance);
    sums.squares += __shfl_down_sync(0xFFFFFFFFu, sums.squares, distance);
  }
  return sums;
}

// One block a patch: its mean and deviation as coefficients. Sums of integers do not depend on
// order.
__global__ void __launch_bounds__(kSumThreads)
    standardize_kernel(const Geometry geometry, Coefficients* __restrict__ by_slot) {
  __shared__ Sums of_warp[kSumThreads / kWarp];
  for (int64_t slot = blockIdx.x; slot < geometry.num_slots; slot += gridDim.x) {
    const Source source = find_source(geometry, slot);
    require(source.is_valid);
    const Sums part = add_over_warp(sum_part(geometry, source, threadIdx.x, kSumThreads));
    if (threadIdx.x % kWarp == 0) {
      of_warp[threadIdx.x / kWarp] = part;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      Sums sums = {0, 0};
      for (const Sums& warp : of_warp) {
        sums.values += warp.values;
        sums.squares += warp.squares;
      }
      by_slot[slot] = standardizing(sums, geometry.height * geometry.width);
    }
    __syncthreads();
  }
}

unsigned int grid_size(int64_t blocks) {
  return static_cast<unsigned int>(std::min(blocks, kMaxBlocks));
}

// Elements of a slot that one thread group can be made of: all of them, or pixels of one plane.
template <bool kInterleaved>
int64_t count_elements(const Geometry& geometry) {
  return static_cast<int64_t>(geometry.height) * geometry.width * (kInterleaved ? 3 : 1);
}

template <typename Out, int N, bool kInterleaved>
cudaError_t launch_map(Job<Out> job, cudaStream_t stream) {
  job.num_groups = static_cast<uint32_t>(count_elements<kInterleaved>(job.geometry) / N);
  job.num_chunks = (job.num_groups + kGroupsPerBlock - 1) / kGroupsPerBlock;
  const unsigned int grid = grid_size(job.geometry.num_slots * job.num_chunks);
  map_kernel<Out, N, kInterleaved><<<grid, kThreads, 0, stream>>>(job);
  return cudaGetLastError();
}

// Writes 16 bytes at a time where every slot begins at a multiple of 16 bytes, else one element.
template <typename Out, bool kInterleaved>
cudaError_t launch_widest(const Job<Out>& job, cudaStream_t stream) {
  const bool is_aligned = reinterpret_cast<uintptr_t>(job.out) % 16 == 0;
  if (is_aligned && count_elements<kInterleaved>(job.geometry) % kWide<Out> == 0) {
    return launch_map<Out, kWide<Out>, kInterleaved>(job, stream);
  }
  return launch_map<Out, 1, kInterleaved>(job, stream);
}

// Fills in how pixels become floats; standardising asks for its own pass.
template <typename Out>
cudaError_t set_scaling(Job<Out>& job, const Scaling& scaling, cudaStream_t stream) {
  if (scaling.workspace == nullptr) {
    for (int channel = 0; channel < 3; ++channel) {
      job.channels[channel] = normalizing(scaling.mean[channel], scaling.std[channel]);
    }
    return cudaSuccess;
  }
  auto* by_slot = static_cast<Coefficients*>(scaling.workspace);
  job.by_slot = by_slot;
  const unsigned int grid = grid_size(job.geometry.num_slots);
  standardize_kernel<<<grid, kSumThreads, 0, stream>>>(job.geometry, by_slot);
  return cudaGetLastError();
}

template <typename Out>
cudaError_t map_floating(const Geometry& geometry, const Scaling& scaling, Out* out,
                         bool interleaved, cudaStream_t stream) {
  Job<Out> job = {geometry, 0, 0, {}, nullptr, out};
  const cudaError_t error = set_scaling(job, scaling, stream);
  if (error != cudaSuccess) {
    return error;
  }
  return interleaved ? launch_widest<Out, true>(job, stream)
                     : launch_widest<Out, false>(job, stream);
}

}  // namespace

cudaError_t map_patches(const Images& images, const Cut& cut, int64_t height, int64_t width,
                        int64_t num_slots, const Scaling& scaling, const Output& output,
                        cudaStream_t stream) {
  const Geometry geometry = {images, cut, static_cast<uint32_t>(height),
                             static_cast<uint32_t>(width), num_slots};
  switch (output.element) {
    case Element::kUint8:
      return launch_widest<uint8_t, true>(
          {geometry, 0, 0, {}, nullptr, static_cast<uint8_t*>(output.data)}, stream);
    case Element::kFloat32:
      return map_floating(geometry, scaling, static_cast<float*>(output.data), output.interleaved,
                          stream);
    case Element::kFloat16:
      return map_floating(geometry, scaling, static_cast<__half*>(output.data), output.interleaved,
                          stream);
    case Element::kBfloat16:
      return map_floating(geometry, scaling, static_cast<__nv_bfloat16*>(output.data),
                          output.interleaved, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace fastssl::cuda
