// From a dtype of the outputs to the type that a kernel is written for.
#pragma once

#include <ATen/ATen.h>

namespace fastssl {

// Calls run with a zero of the type of a floating dtype that was checked before.
template <typename Run>
void dispatch_floating(at::ScalarType dtype, const Run& run) {
  switch (dtype) {
    case at::kFloat:
      run(float{});
      break;
    case at::kHalf:
      run(at::Half{});
      break;
    default:
      run(at::BFloat16{});
  }
}

}  // namespace fastssl
