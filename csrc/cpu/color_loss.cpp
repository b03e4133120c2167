// Soft cross-entropy over colour bins, from logits and the a and b of every pixel. The target of a
// pixel, K bins and their shares, lives only while that pixel is worked on.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <type_traits>
#include <vector>

#include "color.h"
#include "cpu/dispatch.h"
#include "cpu/pages.h"

// Last, as it says itself.
#include "cpu/color_targets.h"
#include "cpu/lanes.h"

namespace fastssl {
namespace {

// Pixels that are worked on together. Their logits and the gradient, 313 x 128 of float32 each,
// stay in the second cache, and rows of a plane are long enough to be fetched ahead.
constexpr int64_t kStrip = 128;
// Numbers in the vectors of the widest machine.
constexpr int64_t kLanes = 16;
// Planes that share one correction of the sums.
constexpr int64_t kPlanes = 8;

// Takes num_planes logits of each pixel into its greatest one and its sum of exp(x - greatest).
FASTSSL_INLINE void add_planes(const float* x, int64_t stride, int64_t num_planes, int64_t width,
                               float* greatest, float* sums) {
  for (int64_t p = 0; p < width; ++p) {
    float most = greatest[p];
    for (int64_t k = 0; k < num_planes; ++k) {
      const float value = x[k * stride + p];
      most = value > most ? value : most;
    }
    float sum = sums[p] * fast_exp(greatest[p] - most);
    for (int64_t k = 0; k < num_planes; ++k) {
      sum += fast_exp(x[k * stride + p] - most);
    }
    greatest[p] = most;
    sums[p] = sum;
  }
}

// The logarithm of each pixel's sum of exponentials; bins are planes, `stride` apart.
FASTSSL_INLINE void sum_planes_body(const float* x, int64_t stride, int64_t num_bins, int64_t width,
                                    float* log_sums) {
  float greatest[kStrip], sums[kStrip];
  for (int64_t p = 0; p < width; ++p) {
    // Not minus infinity: a logit may be that, and their difference is no number.
    greatest[p] = std::numeric_limits<float>::lowest();
    sums[p] = 0.0f;
  }
  int64_t bin = 0;
  for (; bin + kPlanes <= num_bins; bin += kPlanes) {
    add_planes(x + bin * stride, stride, kPlanes, width, greatest, sums);
  }
  for (; bin < num_bins; ++bin) {
    add_planes(x + bin * stride, stride, 1, width, greatest, sums);
  }
  for (int64_t p = 0; p < width; ++p) {
    log_sums[p] = greatest[p] + std::log(sums[p]);
  }
}

FASTSSL_KERNEL(sum_planes,
               (const float* x, int64_t stride, int64_t num_bins, int64_t width, float* log_sums),
               (x, stride, num_bins, width, log_sums))

// The same of one pixel whose logits lie side by side.
FASTSSL_INLINE void sum_line_body(const float* x, int64_t num_bins, float* log_sum) {
  float greatest[kLanes], sums[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    greatest[lane] = std::numeric_limits<float>::lowest();
    sums[lane] = 0.0f;
  }
  const int64_t whole = num_bins / kLanes * kLanes;
  for (int64_t bin = 0; bin < whole; bin += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float value = x[bin + lane];
      greatest[lane] = value > greatest[lane] ? value : greatest[lane];
    }
  }
  float most = std::numeric_limits<float>::lowest();
  for (int64_t bin = whole; bin < num_bins; ++bin) {
    most = x[bin] > most ? x[bin] : most;
  }
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    most = greatest[lane] > most ? greatest[lane] : most;
  }
  for (int64_t bin = 0; bin < whole; bin += kLanes) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += fast_exp(x[bin + lane] - most);
    }
  }
  float sum = 0.0f;
  for (int64_t bin = whole; bin < num_bins; ++bin) {
    sum += fast_exp(x[bin] - most);
  }
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    sum += sums[lane];
  }
  *log_sum = most + std::log(sum);
}

FASTSSL_KERNEL(sum_line, (const float* x, int64_t num_bins, float* log_sum), (x, num_bins, log_sum))

// Logits become softmax, scaled pixel by pixel.
FASTSSL_INLINE void scale_planes_body(const float* x, int64_t stride, int64_t num_bins,
                                      int64_t width, const float* log_sums, const float* scales,
                                      float* out) {
  for (int64_t bin = 0; bin < num_bins; ++bin) {
    for (int64_t p = 0; p < width; ++p) {
      out[bin * stride + p] = scales[p] * fast_exp(x[bin * stride + p] - log_sums[p]);
    }
  }
}

FASTSSL_KERNEL(scale_planes,
               (const float* x, int64_t stride, int64_t num_bins, int64_t width,
                const float* log_sums, const float* scales, float* out),
               (x, stride, num_bins, width, log_sums, scales, out))

FASTSSL_INLINE void scale_line_body(const float* x, int64_t num_bins, float log_sum, float scale,
                                    float* out) {
  for (int64_t bin = 0; bin < num_bins; ++bin) {
    out[bin] = scale * fast_exp(x[bin] - log_sum);
  }
}

FASTSSL_KERNEL(scale_line,
               (const float* x, int64_t num_bins, float log_sum, float scale, float* out),
               (x, num_bins, log_sum, scale, out))

FASTSSL_INLINE void widen_halves_body(const uint16_t* __restrict from, int64_t num,
                                      float* __restrict to) {
  for (int64_t i = 0; i < num; ++i) {
    to[i] = widen_half(from[i]);
  }
}

FASTSSL_KERNEL(widen_halves, (const uint16_t* from, int64_t num, float* to), (from, num, to))

FASTSSL_INLINE void narrow_to_halves_body(const float* __restrict from, int64_t num,
                                          uint16_t* __restrict to) {
  for (int64_t i = 0; i < num; ++i) {
    to[i] = narrow_to_half(from[i]);
  }
}

FASTSSL_KERNEL(narrow_to_halves, (const float* from, int64_t num, uint16_t* to), (from, num, to))

// Copies numbers of one type to numbers of another.
template <typename From, typename To>
void convert(const From* from, int64_t num, To* to) {
  if constexpr (std::is_same_v<From, at::Half>) {
    widen_halves(&from->x, num, to);
  } else if constexpr (std::is_same_v<To, at::Half>) {
    narrow_to_halves(from, num, &to->x);
  } else {
    std::copy_n(from, num, to);
  }
}

// Pixels that follow each other, and where they stand.
struct Strip {
  int64_t image;
  int64_t num;     // of pixels
  int64_t first;   // the first one, inside the batch
  int64_t logits;  // the first logit of the first pixel
};

// How the floats lie that a kernel reads and writes: bin q of pixel p stands at
// q * bin_stride + p * pixel_stride.
struct Layout {
  int64_t bin_stride;
  int64_t pixel_stride;
  int64_t width;  // pixels that the kernel works on: whole vectors where bins are planes
};

// What a thread works with: the targets of a strip, and a copy of its logits where a kernel cannot
// work on the tensor as it lies.
struct Worker {
  explicit Worker(const LossArguments& arguments)
      : arguments(arguments),
        code(arguments.code),
        layout(arguments.layout),
        finder(code),
        bins((code.num_neighbors + 1) * kStrip),
        shares((code.num_neighbors + 1) * kStrip) {
    for (int64_t p = 0; p < kStrip; ++p) {
      const int64_t first = p * (code.num_neighbors + 1);
      targets[p] = {bins.data() + first, shares.data() + first, 0, 0.0f};
    }
  }

  bool is_planar() const { return layout.pixel_stride == 1; }

  // Whether a kernel may work on tensors as they lie.
  template <typename T>
  bool is_direct(const Strip& strip) const {
    return std::is_same_v<T, float> && (!is_planar() || strip.num % kLanes == 0);
  }

  template <typename T>
  Layout describe(const Strip& strip) const {
    if (is_direct<T>(strip) || !is_planar()) {
      return {layout.bin_stride, layout.pixel_stride, strip.num};
    }
    return {kStrip, 1, (strip.num + kLanes - 1) / kLanes * kLanes};
  }

  // A strip's logits as floats: the tensor's own, or a copy.
  template <typename T>
  const float* load(const T* logits, const Strip& strip) {
    const T* first = logits + strip.logits;
    if constexpr (std::is_same_v<T, float>) {
      if (is_direct<T>(strip)) {
        return first;
      }
    }
    float* tile = get_tile();
    if (is_planar()) {
      for (int64_t bin = 0; bin < code.num_bins; ++bin) {
        convert(first + bin * layout.bin_stride, strip.num, tile + bin * kStrip);
      }
    } else {
      convert(first, strip.num * code.num_bins, tile);
    }
    return tile;
  }

  // Where a strip's gradient is made: in the tensor, or in the place of the copy.
  template <typename T>
  float* find_place(T* out, const Strip& strip) {
    if constexpr (std::is_same_v<T, float>) {
      if (is_direct<T>(strip)) {
        return out + strip.logits;
      }
    }
    return get_tile();
  }

  // Brings it into the tensor.
  template <typename T>
  void store(const float* grad, const Strip& strip, T* out) const {
    T* first = out + strip.logits;
    if (is_direct<T>(strip)) {
      return;
    }
    if (is_planar()) {
      for (int64_t bin = 0; bin < code.num_bins; ++bin) {
        convert(grad + bin * kStrip, strip.num, first + bin * layout.bin_stride);
      }
    } else {
      convert(grad, strip.num * code.num_bins, first);
    }
  }

  float* get_tile() {
    tile.resize(code.num_bins * kStrip);  // zeros at first: lanes beyond a strip hold numbers
    return tile.data();
  }

  void find_targets(const Strip& strip) {
    const int64_t plane = layout.num_pixels;
    const float* a = arguments.ab.const_data_ptr<float>() + strip.first + strip.image * plane;
    for (int64_t p = 0; p < strip.num; ++p) {
      finder.find(a[p], a[plane + p], targets[p]);
    }
  }

  const LossArguments& arguments;
  const ColorCode& code;
  const Logits& layout;
  TargetFinder finder;
  std::vector<int32_t> bins;
  std::vector<float> shares;
  Target targets[kStrip];
  std::vector<float> tile;
};

// Calls work(strip, worker) for every strip, in parallel.
template <typename Work>
void for_each_strip(const LossArguments& arguments, const Work& work) {
  const Logits& layout = arguments.layout;
  const int64_t per_image = (layout.num_pixels + kStrip - 1) / kStrip;
  at::parallel_for(0, layout.num_images * per_image, 2, [&](int64_t begin, int64_t end) {
    Worker worker(arguments);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t image = index / per_image, pixel = index % per_image * kStrip;
      const int64_t first = image * layout.num_pixels;
      const Strip strip = {image, std::min(kStrip, layout.num_pixels - pixel), first + pixel,
                           first * arguments.code.num_bins + pixel * layout.pixel_stride};
      work(strip, worker);
    }
  });
}

template <typename In>
void find_losses(const LossArguments& arguments, float* losses, float* log_sums) {
  const int64_t num_bins = arguments.code.num_bins;
  const In* logits = arguments.logits.const_data_ptr<In>();
  const bool* counted = data_or_null<bool>(arguments.counted);
  for_each_strip(arguments, [&](const Strip& strip, Worker& worker) {
    if (counted && !counted[strip.image]) {
      std::fill_n(losses + strip.first, strip.num, 0.0f);
      std::fill_n(log_sums + strip.first, strip.num, 0.0f);
      return;
    }
    const float* x = worker.load(logits, strip);
    const Layout at = worker.describe<In>(strip);
    float sums[kStrip];
    if (worker.is_planar()) {
      sum_planes(x, at.bin_stride, num_bins, at.width, sums);
    } else {
      for (int64_t p = 0; p < strip.num; ++p) {
        sum_line(x + p * at.pixel_stride, num_bins, sums + p);
      }
    }
    worker.find_targets(strip);
    for (int64_t p = 0; p < strip.num; ++p) {
      const Target& target = worker.targets[p];
      const float* pixel = x + p * at.pixel_stride;
      float loss = 0.0f;
      for (int64_t k = 0; k < target.num; ++k) {
        loss += target.shares[k] * (sums[p] - pixel[target.bins[k] * at.bin_stride]);
      }
      losses[strip.first + p] = target.weight * loss;
      log_sums[strip.first + p] = sums[p];
    }
  });
}

template <typename In>
void find_gradient(const LossArguments& arguments, const float* grads, const float* log_sums,
                   In* out) {
  const int64_t num_bins = arguments.code.num_bins;
  const In* logits = arguments.logits.const_data_ptr<In>();
  const bool* counted = data_or_null<bool>(arguments.counted);
  for_each_strip(arguments, [&](const Strip& strip, Worker& worker) {
    const Layout at = worker.describe<In>(strip);
    if (counted && !counted[strip.image]) {
      // Zeros whatever the logits are: 0 times an exp that overflows is none.
      float* grad = worker.find_place(out, strip);
      if (worker.is_planar()) {
        for (int64_t bin = 0; bin < num_bins; ++bin) {
          std::fill_n(grad + bin * at.bin_stride, strip.num, 0.0f);
        }
      } else {
        std::fill_n(grad, strip.num * num_bins, 0.0f);
      }
      worker.store(grad, strip, out);
      return;
    }
    const float* x = worker.load(logits, strip);
    float* grad = worker.find_place(out, strip);
    float scales[kStrip] = {}, sums[kStrip] = {};
    worker.find_targets(strip);
    for (int64_t p = 0; p < strip.num; ++p) {
      sums[p] = log_sums[strip.first + p];
      scales[p] = grads[strip.first + p] * worker.targets[p].weight;
    }
    if (worker.is_planar()) {
      scale_planes(x, at.bin_stride, num_bins, at.width, sums, scales, grad);
    } else {
      for (int64_t p = 0; p < strip.num; ++p) {
        const int64_t first = p * at.pixel_stride;
        scale_line(x + first, num_bins, sums[p], scales[p], grad + first);
      }
    }
    for (int64_t p = 0; p < strip.num; ++p) {
      const Target& target = worker.targets[p];
      float* pixel = grad + p * at.pixel_stride;
      for (int64_t k = 0; k < target.num; ++k) {
        pixel[target.bins[k] * at.bin_stride] -= scales[p] * target.shares[k];
      }
    }
    worker.store(grad, strip, out);
  });
}

std::tuple<at::Tensor, at::Tensor> color_loss(const at::Tensor& logits, const at::Tensor& ab,
                                              const at::Tensor& bins, const at::Tensor& offsets,
                                              const at::Tensor& candidates,
                                              const std::optional<at::Tensor>& weights,
                                              const std::optional<at::Tensor>& counted,
                                              int64_t num_neighbors, double sigma) {
  const LossArguments arguments(logits, ab, bins, offsets, candidates, weights, counted,
                                num_neighbors, sigma);
  at::Tensor losses = arguments.empty_pixels(), log_sums = arguments.empty_pixels();
  if (losses.numel() == 0) {
    return {losses, log_sums};
  }
  dispatch_floating(logits.scalar_type(), [&](auto zero) {
    find_losses<decltype(zero)>(arguments, losses.mutable_data_ptr<float>(),
                                log_sums.mutable_data_ptr<float>());
  });
  return {losses, log_sums};
}

at::Tensor color_loss_backward(const at::Tensor& grads_in, const at::Tensor& log_sums_in,
                               const at::Tensor& logits, const at::Tensor& ab,
                               const at::Tensor& bins, const at::Tensor& offsets,
                               const at::Tensor& candidates,
                               const std::optional<at::Tensor>& weights,
                               const std::optional<at::Tensor>& counted, int64_t num_neighbors,
                               double sigma) {
  const LossArguments arguments(logits, ab, bins, offsets, candidates, weights, counted,
                                num_neighbors, sigma);
  const at::Tensor grads = arguments.check_pixels(grads_in, "grads");
  const at::Tensor log_sums = arguments.check_pixels(log_sums_in, "log_sums");
  at::Tensor out = at::empty_like(arguments.logits);
  if (out.numel() == 0) {
    return out;
  }
  advise_huge_pages(out);
  dispatch_floating(logits.scalar_type(), [&](auto zero) {
    using Out = decltype(zero);
    find_gradient<Out>(arguments, grads.const_data_ptr<float>(), log_sums.const_data_ptr<float>(),
                       out.mutable_data_ptr<Out>());
  });
  return out;
}

}  // namespace
}  // namespace fastssl

TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("color_loss", &fastssl::color_loss);
  m.impl("color_loss_backward", &fastssl::color_loss_backward);
}
