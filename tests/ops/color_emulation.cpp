// Runs what every thread of the colour kernels does on the host, barrier by barrier. Built and
// called by test_color_emulation.py.
#include <vector>

#include "cuda/color_kernels.cuh"

using namespace fastssl;
using namespace fastssl::cuda;

namespace {

std::vector<float> build_linear() {
  std::vector<float> linear;
  for (int value = 0; value < 256; ++value) {
    linear.push_back(linear_of(value));
  }
  return linear;
}

// As loss_kernel in color_kernels.cu does; pixels beyond the last one included.
void run_block(const LossJob<float>& job, int64_t image, int64_t first, int num_pixels,
               int num_slices) {
  std::vector<Pixel<float>> pixels;
  for (int p = 0; p < num_pixels; ++p) {
    pixels.emplace_back(job, image, first + p);
  }
  for (const Pixel<float>& pixel : pixels) {
    Last last = pixel.find_last(0, num_slices);
    LogSum log_sum = LogSum::of_nothing();
    for (int slice = 0; slice < num_slices; ++slice) {
      last = later(last, pixel.find_last(slice, num_slices));
      if (job.grad == nullptr) {
        log_sum.add(pixel.find_log_sum(slice, num_slices));
      }
    }
    Shares shares = {0.0f, 0.0f};
    for (int slice = 0; slice < num_slices; ++slice) {
      shares.add(pixel.find_shares(last, slice, num_slices, job.grad == nullptr));
    }
    if (job.grad == nullptr) {
      pixel.write_loss(log_sum, shares);
      continue;
    }
    for (int slice = 0; slice < num_slices; ++slice) {
      pixel.write_grad(last, shares, slice, num_slices);
    }
  }
}

}  // namespace

extern "C" {

void emulate_lab(const Images* images, int64_t eight_bit, float* out) {
  const std::vector<float> linear = build_linear();
  for (int64_t i = 0; i < images->num * images->height * images->width; ++i) {
    convert_pixel(*images, linear.data(), eight_bit != 0, i, out);
  }
}

void emulate_split(const Images* images, const bool* flip, int64_t stride, int64_t mean,
                   int64_t eight_bit, float* light, float* ab) {
  const std::vector<float> linear = build_linear();
  const SplitJob<float> job = {*images, {flip, stride, mean != 0, eight_bit != 0}, light, ab};
  const int64_t cells = images->num * (images->height / stride) * (images->width / stride);
  for (int64_t cell = 0; cell < cells; ++cell) {
    split_cell(job, linear.data(), cell);
  }
}

void emulate_loss(const LossJob<float>* job, int64_t is_planar) {
  const int num_pixels = is_planar != 0 ? 32 : 8, num_slices = 256 / num_pixels;
  for (int64_t image = 0; image < job->layout.num_images; ++image) {
    for (int64_t first = 0; first < job->layout.num_pixels; first += num_pixels) {
      run_block(*job, image, first, num_pixels, num_slices);
    }
  }
}

}  // extern "C"
