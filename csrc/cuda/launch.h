// What the host functions of both operators share.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <limits>
#include <utility>

#include "common.h"
#include "cuda/architectures.h"
#include "cuda/kernels.h"

namespace fastssl::cuda {

// Whether this binary holds code for a device. Asked once a device: the answer does not change.
inline bool has_code_for(at::Device device) {
  constexpr int kMaxDevices = 128;
  enum : signed char { kUnknown, kYes, kNo };
  static std::array<std::atomic<signed char>, kMaxDevices> answers = {};
  std::atomic<signed char>& answer = answers.at(device.index());
  if (answer == kUnknown) {
    int major = 0, minor = 0;
    C10_CUDA_CHECK(
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()));
    C10_CUDA_CHECK(
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.index()));
    answer = covers(FASTSSL_CUDA_ARCHS, major, minor) ? kYes : kNo;
  }
  return answer == kYes;
}

// Runs an operator that Python registers: the reference, which says why it stands in.
template <typename Result, typename... Parameters, typename... Arguments>
Result call_reference(const char* name, Result (*)(Parameters...), Arguments&&... arguments) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .typed<Result(Parameters...)>()
      .call(std::forward<Arguments>(arguments)...);
}

// The kernels count the pixels and channels of one patch in 32 bits; those of a batch in 64.
inline void check_size(int64_t height, int64_t width) {
  TORCH_CHECK_VALUE(height * width <= std::numeric_limits<int32_t>::max() / 3,
                    "a patch or image must hold less than 2**31 values, got 3 x ", height, " x ",
                    width);
}

inline Element element_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kByte:
      return Element::kUint8;
    case at::kHalf:
      return Element::kFloat16;
    case at::kBFloat16:
      return Element::kBfloat16;
    default:
      return Element::kFloat32;
  }
}

}  // namespace fastssl::cuda
