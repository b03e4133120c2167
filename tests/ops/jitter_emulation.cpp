// Runs what every thread of color_jitter's kernels does, one thread after the other, on the host.
// Built and called by test_jitter_emulation.py.
#include <type_traits>

#include "cuda/jitter_kernels.cuh"
#include "ops/bfloat16.h"

using namespace fastssl;
using namespace fastssl::cuda;

template <>
struct fastssl::cuda::Cast<Bfloat16> {
  static Bfloat16 store(float value) { return Bfloat16::round(value); }
};

namespace {

template <typename Out, int N, bool kInterleaved>
void run_all(PaintJob<Out> job) {
  const Geometry& geometry = job.geometry;
  job.num_groups = geometry.height * geometry.width / N;
  job.num_chunks = (job.num_groups + kGroupsPerBlock - 1) / kGroupsPerBlock;
  for (int64_t image = 0; image < geometry.num_slots; ++image) {
    for (uint32_t chunk = 0; chunk < job.num_chunks; ++chunk) {
      for (uint32_t thread = 0; thread < kThreads; ++thread) {
        paint_part<Out, N, kInterleaved>(job, image, chunk, thread);
      }
    }
  }
}

template <typename Out, int N>
void run_layout(const PaintJob<Out>& job, bool interleaved) {
  interleaved ? run_all<Out, N, true>(job) : run_all<Out, N, false>(job);
}

template <typename Out>
void run(const PaintJob<Out>& job, bool interleaved, bool is_wide) {
  is_wide ? run_layout<Out, kPaintPixels>(job, interleaved) : run_layout<Out, 1>(job, interleaved);
}

// As moments_kernel does.
Coefficients find_coefficients(const Geometry& geometry, const Jitter& jitter, int64_t image) {
  constexpr uint32_t kNumThreads = 256;
  PaintedSums parts[kNumThreads];
  for (uint32_t thread = 0; thread < kNumThreads; ++thread) {
    parts[thread] = sum_painted(geometry, jitter, image, thread, kNumThreads);
  }
  for (uint32_t half = kNumThreads / 2; half > 0; half /= 2) {
    for (uint32_t thread = 0; thread < half; ++thread) {
      parts[thread].add(parts[thread + half]);
    }
  }
  return standardizing_painted(parts[0], geometry.height * geometry.width);
}

}  // namespace

extern "C" {

struct Call {
  Images images;
  const bool* flip;
  Jitter jitter;
  const double* mean_and_std;  // six numbers, or null
  Coefficients* by_image;      // workspace to standardise, or null
  void* out;
  int64_t element_size;
  int64_t interleaved;
  int64_t is_wide;
};

void emulate(const Call* call) {
  const Geometry geometry = {call->images,
                             {nullptr, nullptr, call->flip, nullptr, false, 1, 0},
                             static_cast<uint32_t>(call->images.height),
                             static_cast<uint32_t>(call->images.width),
                             call->images.num};
  Coefficients channels[3] = {};
  for (int k = 0; call->mean_and_std != nullptr && k < 3; ++k) {
    channels[k] = normalizing(call->mean_and_std[k], call->mean_and_std[3 + k]);
  }
  for (int64_t image = 0; call->by_image != nullptr && image < geometry.num_slots; ++image) {
    call->by_image[image] = find_coefficients(geometry, call->jitter, image);
  }
  const auto start = [&](auto* out) {
    using Out = std::remove_pointer_t<decltype(out)>;
    const PaintJob<Out> job = {
        geometry, call->jitter, 0, 0, {channels[0], channels[1], channels[2]}, call->by_image, out};
    run(job, call->interleaved != 0, call->is_wide != 0);
  };
  if (call->element_size == 2) {
    start(static_cast<Bfloat16*>(call->out));
  } else {
    start(static_cast<float*>(call->out));
  }
}

}  // extern "C"
