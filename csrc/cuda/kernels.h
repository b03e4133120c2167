// What the host functions call: launches of the kernels in pixels.cu and color_kernels.cu. No torch
// headers on either side.
#pragma once

#include <cuda_runtime_api.h>

#include "layout.h"

namespace fastssl::cuda {

enum class Element { kUint8, kFloat32, kFloat16, kBfloat16 };

// Bytes of workspace that standardising needs for one output patch.
constexpr int64_t kWorkspaceBytes = 16;

// How the pixels are scaled; only one of the two.
struct Scaling {
  const double* mean;  // of R, G, B in 0..1, on the host; null for none
  const double* std;
  void* workspace;  // on the device, kWorkspaceBytes a patch: standardise; null for none
};

// What is written.
struct Output {
  void* data;
  Element element;
  bool interleaved;  // channels next to each other, else one plane after the other
};

// Cuts, maps and writes `num_slots` patches of height x width on a stream; nothing waits for it. A
// patch across the border or an order outside the patches trips a device-side assertion.
cudaError_t map_patches(const Images& images, const Cut& cut, int64_t height, int64_t width,
                        int64_t num_slots, const Scaling& scaling, const Output& output,
                        cudaStream_t stream);

// Paints whole images with new colours, as a jitter says, scales and writes them. The element is
// not uint8.
cudaError_t paint_images(const Images& images, const bool* flip, const Jitter& jitter,
                         const Scaling& scaling, const Output& output, cudaStream_t stream);

// Copies of whole images in normalised Lab or RGB, augmented. The element is not uint8.
cudaError_t augment_images(const Images& images, const Augmentation& augmentation,
                           const Output& output, cudaStream_t stream);

// All pixels to planes of L, a and b.
cudaError_t convert_to_lab(const Images& images, bool eight_bit, float* out, cudaStream_t stream);

// Lightness of every pixel, of type `element`, and a and b at the split's stride.
cudaError_t split_to_lab(const Images& images, const Split& split, void* light, Element element,
                         float* ab, cudaStream_t stream);

// What the colour loss looks at; pointers on the device.
struct LossInput {
  ColorCode code;
  Logits layout;
  const void* logits;
  Element element;
  const float* ab;
  const bool* counted;
};

// What is written: the first two, or the gradient by the next two.
struct LossOutput {
  float* losses;
  float* log_sums;
  const float* grads;
  const float* kept_log_sums;
  void* grad;
};

cudaError_t find_color_loss(const LossInput& input, const LossOutput& output, cudaStream_t stream);

}  // namespace fastssl::cuda
