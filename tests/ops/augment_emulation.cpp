// Runs what every thread of augment_views' kernel does, one thread after the other, on the host.
// Built and called by test_augment_emulation.py.
#include "cuda/augment_kernels.cuh"
#include "ops/bfloat16.h"

using namespace fastssl;
using namespace fastssl::cuda;

template <>
struct fastssl::cuda::Cast<Bfloat16> {
  static Bfloat16 store(float value) { return Bfloat16::round(value); }
};

namespace {

template <typename Out, int N, bool kInterleaved>
void run_all(AugmentJob<Out> job) {
  float linear[256];
  for (int value = 0; value < 256; ++value) {
    linear[value] = linear_of(value);
  }
  job.num_groups = static_cast<uint32_t>(job.images.height * job.images.width / N);
  job.num_chunks = (job.num_groups + kGroupsPerBlock - 1) / kGroupsPerBlock;
  for (int64_t slot = 0; slot < job.images.num * job.augmentation.copies; ++slot) {
    for (uint32_t chunk = 0; chunk < job.num_chunks; ++chunk) {
      for (uint32_t thread = 0; thread < kThreads; ++thread) {
        augment_part<Out, N, kInterleaved>(job, linear, slot, chunk, thread);
      }
    }
  }
}

template <typename Out, int N>
void run_layout(const AugmentJob<Out>& job, bool interleaved) {
  interleaved ? run_all<Out, N, true>(job) : run_all<Out, N, false>(job);
}

template <typename Out>
void run(const Images& images, const Augmentation& augmentation, Out* out, bool interleaved,
         bool is_wide) {
  const AugmentJob<Out> job = {images, augmentation, 0, 0, out};
  is_wide ? run_layout<Out, kAugmentPixels>(job, interleaved)
          : run_layout<Out, 1>(job, interleaved);
}

}  // namespace

extern "C" {

struct Call {
  Images images;
  Augmentation augmentation;
  void* out;
  int64_t element_size;
  int64_t interleaved;
  int64_t is_wide;
};

void emulate(const Call* call) {
  if (call->element_size == 2) {
    run(call->images, call->augmentation, static_cast<Bfloat16*>(call->out), call->interleaved != 0,
        call->is_wide != 0);
  } else {
    run(call->images, call->augmentation, static_cast<float*>(call->out), call->interleaved != 0,
        call->is_wide != 0);
  }
}

}  // extern "C"
