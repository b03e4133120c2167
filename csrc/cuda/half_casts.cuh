// What is stored in half precision; color_kernels.cuh, which the host compiles too, has float.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "cuda/color_kernels.cuh"

namespace fastssl::cuda {

template <>
struct Cast<__half> {
  static FASTSSL_HD __half store(float value) { return __float2half_rn(value); }
  static FASTSSL_HD float load(__half value) { return __half2float(value); }
};

template <>
struct Cast<__nv_bfloat16> {
  static FASTSSL_HD __nv_bfloat16 store(float value) { return __float2bfloat16_rn(value); }
  static FASTSSL_HD float load(__nv_bfloat16 value) { return __bfloat162float(value); }
};

}  // namespace fastssl::cuda
