// Runs what every thread of the CUDA kernels does, one thread after the other, on the host. Built
// and called by test_cuda_emulation.py.
#include <type_traits>

#include "cuda/architectures.h"
#include "cuda/pixels.cuh"
#include "ops/bfloat16.h"

using namespace fastssl;
using namespace fastssl::cuda;

template <>
struct fastssl::cuda::Convert<Bfloat16> {
  static Bfloat16 run(uint32_t value, const Coefficients& c) {
    return Bfloat16::round(apply(value, c));
  }
};

namespace {

template <typename Out, int N, bool kInterleaved>
bool run_all(Job<Out> job) {
  const Geometry& geometry = job.geometry;
  const uint32_t elements = geometry.height * geometry.width * (kInterleaved ? 3 : 1);
  if (elements % N != 0) {
    return false;
  }
  job.num_groups = elements / N;
  job.num_chunks = (job.num_groups + kGroupsPerBlock - 1) / kGroupsPerBlock;
  bool is_valid = true;
  for (int64_t slot = 0; slot < geometry.num_slots; ++slot) {
    for (uint32_t chunk = 0; chunk < job.num_chunks; ++chunk) {
      for (uint32_t thread = 0; thread < kThreads; ++thread) {
        if constexpr (kInterleaved) {
          is_valid &= map_interleaved<Out, N>(job, slot, chunk, thread);
        } else {
          is_valid &= map_planar<Out, N>(job, slot, chunk, thread);
        }
      }
    }
  }
  return is_valid;
}

template <typename Out, int N>
bool run_layout(const Job<Out>& job, bool interleaved) {
  return interleaved ? run_all<Out, N, true>(job) : run_all<Out, N, false>(job);
}

template <typename Out>
bool run_width(const Job<Out>& job, bool interleaved, bool is_wide) {
  return is_wide ? run_layout<Out, kWide<Out>>(job, interleaved)
                 : run_layout<Out, 1>(job, interleaved);
}

}  // namespace

extern "C" {

struct Call {
  Images images;
  Cut cut;
  int64_t height, width, num_slots;
  const double* mean_and_std;  // six numbers, or null
  Coefficients* by_slot;       // workspace to standardise, or null
  void* out;
  int64_t element_size;
  int64_t interleaved;
  int64_t is_wide;
};

// Returns whether every patch was valid, and wide stores possible where they were asked for.
bool emulate(const Call* call) {
  const Geometry geometry = {call->images, call->cut, static_cast<uint32_t>(call->height),
                             static_cast<uint32_t>(call->width), call->num_slots};
  Coefficients channels[3] = {};
  for (int k = 0; call->mean_and_std != nullptr && k < 3; ++k) {
    channels[k] = normalizing(call->mean_and_std[k], call->mean_and_std[3 + k]);
  }
  for (int64_t slot = 0; call->by_slot != nullptr && slot < call->num_slots; ++slot) {
    const Source source = find_source(geometry, slot);
    Sums sums = {0, 0};
    constexpr uint32_t kNumThreads = 256;
    for (uint32_t thread = 0; source.is_valid && thread < kNumThreads; ++thread) {
      const Sums part = sum_part(geometry, source, thread, kNumThreads);
      sums = {sums.values + part.values, sums.squares + part.squares};
    }
    call->by_slot[slot] = standardizing(sums, geometry.height * geometry.width);
  }
  const auto run = [&](auto* out) {
    using Out = std::remove_pointer_t<decltype(out)>;
    const Job<Out> job = {geometry,      0,  0, {channels[0], channels[1], channels[2]},
                          call->by_slot, out};
    return run_width(job, call->interleaved != 0, call->is_wide != 0);
  };
  switch (call->element_size) {
    case 1:
      return run(static_cast<uint8_t*>(call->out));
    case 2:
      return run(static_cast<Bfloat16*>(call->out));
    default:
      return run(static_cast<float*>(call->out));
  }
}

bool covers_device(const char* list, int major, int minor) { return covers(list, major, minor); }

}  // extern "C"
