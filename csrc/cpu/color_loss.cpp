// Soft cross-entropy over colour bins, from logits and the a and b of every pixel. The target of a
// pixel, K bins and their shares, lives only while that pixel is worked on.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <vector>

#include "color.h"
#include "cpu/dispatch.h"

// Last, as it says itself.
#include "cpu/lanes.h"

namespace fastssl {
namespace {

// Pixels that are worked on together: a cache line of float32 logits.
constexpr int64_t kLanes = 16;

// The target of one pixel: at most K bins and their shares.
struct Target {
  int32_t* bins;
  float* shares;
  int64_t num;
  float weight;  // of the nearest bin
};

// Finds the K nearest bins of a colour and their shares; ties go to the bin of lower number.
class Neighbors {
 public:
  explicit Neighbors(const ColorCode& code)
      : code_(code),
        distances_(code.num_bins),
        sorted_(code.num_bins),
        kept_(code.num_bins),
        all_(code.num_bins) {
    for (int64_t bin = 0; bin < code.num_bins; ++bin) {
      all_[bin] = static_cast<int16_t>(bin);
    }
  }

  void find(float a, float b, Target& target) {
    if (!std::isfinite(a) || !std::isfinite(b)) {
      target.bins[0] = 0;
      target.shares[0] = std::numeric_limits<float>::quiet_NaN();
      target.num = 1;
      target.weight = 1.0f;
      return;
    }
    const int16_t* list = all_.data();
    int64_t num = code_.num_bins;
    const float row = (a + kHalfPlane) / kCellSide, column = (b + kHalfPlane) / kCellSide;
    if (row >= 0 && row < kCells && column >= 0 && column < kCells) {
      const int64_t cell = static_cast<int64_t>(row) * kCells + static_cast<int64_t>(column);
      list = code_.candidates + code_.offsets[cell];
      num = code_.offsets[cell + 1] - code_.offsets[cell];
    }
    float least = std::numeric_limits<float>::infinity();
    int16_t nearest = 0;
    for (int64_t i = 0; i < num; ++i) {
      const float da = a - code_.bins[2 * list[i]], db = b - code_.bins[2 * list[i] + 1];
      distances_[i] = da * da + db * db;
      nearest = distances_[i] < least ? list[i] : nearest;
      least = distances_[i] < least ? distances_[i] : least;
    }
    target.weight = code_.weights ? code_.weights[nearest] : 1.0f;
    select(keep_near(list, num, least + kLeastLogShare / code_.scale), target);
    weigh(least, target);
  }

 private:
  static constexpr float kHalfPlane = 0.5f * kCellSide * kCells;
  static constexpr int64_t kFew = 32;

  // Moves what is not too far to the front and returns how many that are.
  int64_t keep_near(const int16_t* list, int64_t num, float limit) {
    int64_t found = 0;
    for (int64_t i = 0; i < num; ++i) {
      kept_[found] = list[i];
      distances_[found] = distances_[i];
      found += distances_[found] <= limit;
    }
    return found;
  }

  // Keeps the K nearest, in the order of their numbers; `shares` holds squared distances for now.
  void select(int64_t num, Target& target) {
    const int64_t wanted = code_.num_neighbors;
    if (num <= wanted) {
      std::copy_n(kept_.begin(), num, target.bins);
      std::copy_n(distances_.begin(), num, target.shares);
      target.num = num;
      return;
    }
    const Limit limit = num <= kFew ? find_limit_of_few(num, wanted) : find_limit(num, wanted);
    int64_t ties = limit.ties;
    target.num = 0;
    for (int64_t i = 0; target.num < wanted; ++i) {
      const bool is_tie = distances_[i] == limit.distance;
      if (distances_[i] < limit.distance || (is_tie && ties > 0)) {
        ties -= is_tie;
        target.bins[target.num] = kept_[i];
        target.shares[target.num++] = distances_[i];
      }
    }
  }

  // The greatest distance that is kept, and how many of those that have it.
  struct Limit {
    float distance;
    int64_t ties;
  };

  Limit find_limit(int64_t num, int64_t wanted) {
    std::copy_n(distances_.begin(), num, sorted_.begin());
    const auto last = sorted_.begin() + wanted - 1;
    std::nth_element(sorted_.begin(), last, sorted_.begin() + num);
    return {*last, std::count(sorted_.begin(), last + 1, *last)};
  }

  // The same by counting who is nearer, which needs no branches.
  Limit find_limit_of_few(int64_t num, int64_t wanted) const {
    const float* distances = distances_.data();
    Limit limit = {-1.0f, 0};
    for (int64_t i = 0; i < num; ++i) {
      int32_t nearer = 0;
      for (int64_t k = 0; k < num; ++k) {
        nearer += distances[k] < distances[i];
      }
      if (nearer < wanted && distances[i] > limit.distance) {
        limit = {distances[i], wanted - nearer};
      }
    }
    return limit;
  }

  void weigh(float least, const Target& target) const {
    float sum = 0.0f;
    for (int64_t k = 0; k < target.num; ++k) {
      target.shares[k] = fast_exp((target.shares[k] - least) * code_.scale);
      sum += target.shares[k];
    }
    const float scale = 1.0f / sum;
    for (int64_t k = 0; k < target.num; ++k) {
      target.shares[k] *= scale;
    }
  }

  const ColorCode& code_;
  std::vector<float> distances_, sorted_;
  std::vector<int32_t> kept_;
  std::vector<int16_t> all_;
};

// For each lane the logarithm of the sum of exponentials of its logits.
FASTSSL_INLINE void log_sum_exp_body(const float* tile, int64_t num_bins, float* out) {
  float greatest[kLanes], sum[kLanes];
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    greatest[lane] = tile[lane];
    sum[lane] = 0.0f;
  }
  for (int64_t bin = 1; bin < num_bins; ++bin) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const float value = tile[bin * kLanes + lane];
      greatest[lane] = value > greatest[lane] ? value : greatest[lane];
    }
  }
  for (int64_t bin = 0; bin < num_bins; ++bin) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      sum[lane] += fast_exp(tile[bin * kLanes + lane] - greatest[lane]);
    }
  }
  for (int64_t lane = 0; lane < kLanes; ++lane) {
    out[lane] = greatest[lane] + std::log(sum[lane]);
  }
}

FASTSSL_KERNEL(log_sum_exp, (const float* tile, int64_t num_bins, float* out),
               (tile, num_bins, out))

// Logits become softmax, scaled lane by lane.
FASTSSL_INLINE void scale_softmax_body(float* tile, int64_t num_bins, const float* log_sums,
                                       const float* scales) {
  for (int64_t bin = 0; bin < num_bins; ++bin) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      float& value = tile[bin * kLanes + lane];
      value = scales[lane] * fast_exp(value - log_sums[lane]);
    }
  }
}

FASTSSL_KERNEL(scale_softmax,
               (float* tile, int64_t num_bins, const float* log_sums, const float* scales),
               (tile, num_bins, log_sums, scales))

template <typename To, typename From>
void copy_lanes(const From* from, int64_t num, To* to) {
  if (num == kLanes) {  // a count that the compiler knows
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      to[lane] = static_cast<To>(from[lane]);
    }
    return;
  }
  for (int64_t lane = 0; lane < num; ++lane) {
    to[lane] = static_cast<To>(from[lane]);
  }
}

template <typename In>
void load_tile(const In* first, const Logits& layout, int64_t num_bins, int64_t num, float* tile) {
  if (layout.pixel_stride == 1) {
    for (int64_t bin = 0; bin < num_bins; ++bin) {
      copy_lanes(first + bin * layout.bin_stride, num, tile + bin * kLanes);
    }
    return;
  }
  for (int64_t lane = 0; lane < num; ++lane) {
    const In* pixel = first + lane * layout.pixel_stride;
    for (int64_t bin = 0; bin < num_bins; ++bin) {
      tile[bin * kLanes + lane] = static_cast<float>(pixel[bin]);
    }
  }
}

template <typename Out>
void store_tile(const float* tile, const Logits& layout, int64_t num_bins, int64_t num,
                Out* first) {
  if (layout.pixel_stride == 1) {
    for (int64_t bin = 0; bin < num_bins; ++bin) {
      copy_lanes(tile + bin * kLanes, num, first + bin * layout.bin_stride);
    }
    return;
  }
  for (int64_t lane = 0; lane < num; ++lane) {
    Out* pixel = first + lane * layout.pixel_stride;
    for (int64_t bin = 0; bin < num_bins; ++bin) {
      pixel[bin] = static_cast<Out>(tile[bin * kLanes + lane]);
    }
  }
}

// Where a tile's pixels stand.
struct Place {
  int64_t image;
  int64_t pixel;   // the first one, inside the image
  int64_t num;     // of pixels
  int64_t first;   // the first one, inside the batch
  int64_t logits;  // the first logit of the first pixel
};

// What a thread works with.
struct Scratch {
  explicit Scratch(const ColorCode& code)
      : tile(code.num_bins * kLanes),
        bins(code.num_neighbors * kLanes),
        shares(code.num_neighbors * kLanes),
        neighbors(code) {
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      const int64_t first = lane * code.num_neighbors;
      targets[lane] = {bins.data() + first, shares.data() + first, 0, 0.0f};
    }
  }

  std::vector<float> tile;
  std::vector<int32_t> bins;
  std::vector<float> shares;
  Neighbors neighbors;
  Target targets[kLanes];
};

// Calls work(place, scratch) for every tile, in parallel.
template <typename Work>
void for_each_tile(const LossArguments& arguments, const Work& work) {
  const Logits& layout = arguments.layout;
  const int64_t per_image = (layout.num_pixels + kLanes - 1) / kLanes;
  at::parallel_for(0, layout.num_images * per_image, 8, [&](int64_t begin, int64_t end) {
    Scratch scratch(arguments.code);
    for (int64_t index = begin; index < end; ++index) {
      const int64_t image = index / per_image, pixel = index % per_image * kLanes;
      const int64_t first = image * layout.num_pixels;
      const Place place = {image, pixel, std::min(kLanes, layout.num_pixels - pixel), first + pixel,
                           first * arguments.code.num_bins + pixel * layout.pixel_stride};
      work(place, scratch);
    }
  });
}

// Finds the targets of a tile's pixels.
void find_targets(const LossArguments& arguments, const Place& place, Scratch& scratch) {
  const int64_t plane = arguments.layout.num_pixels;
  const float* a = arguments.ab.const_data_ptr<float>() + 2 * place.image * plane + place.pixel;
  for (int64_t lane = 0; lane < place.num; ++lane) {
    scratch.neighbors.find(a[lane], a[plane + lane], scratch.targets[lane]);
  }
}

template <typename In>
void find_losses(const LossArguments& arguments, float* losses, float* log_sums) {
  const ColorCode& code = arguments.code;
  const In* logits = arguments.logits.const_data_ptr<In>();
  const bool* counted = data_or_null<bool>(arguments.counted);
  for_each_tile(arguments, [&](const Place& place, Scratch& scratch) {
    if (counted && !counted[place.image]) {
      std::fill_n(losses + place.first, place.num, 0.0f);
      std::fill_n(log_sums + place.first, place.num, 0.0f);
      return;
    }
    float* tile = scratch.tile.data();
    load_tile(logits + place.logits, arguments.layout, code.num_bins, place.num, tile);
    float sums[kLanes];
    log_sum_exp(tile, code.num_bins, sums);
    find_targets(arguments, place, scratch);
    for (int64_t lane = 0; lane < place.num; ++lane) {
      const Target& target = scratch.targets[lane];
      float loss = 0.0f;
      for (int64_t k = 0; k < target.num; ++k) {
        loss += target.shares[k] * (sums[lane] - tile[target.bins[k] * kLanes + lane]);
      }
      losses[place.first + lane] = target.weight * loss;
      log_sums[place.first + lane] = sums[lane];
    }
  });
}

template <typename In>
void find_gradient(const LossArguments& arguments, const float* grads, const float* log_sums,
                   In* out) {
  const ColorCode& code = arguments.code;
  const In* logits = arguments.logits.const_data_ptr<In>();
  const bool* counted = data_or_null<bool>(arguments.counted);
  for_each_tile(arguments, [&](const Place& place, Scratch& scratch) {
    float* tile = scratch.tile.data();
    if (counted && !counted[place.image]) {
      std::fill_n(tile, code.num_bins * kLanes, 0.0f);
    } else {
      load_tile(logits + place.logits, arguments.layout, code.num_bins, place.num, tile);
      float scales[kLanes] = {}, sums[kLanes] = {};
      find_targets(arguments, place, scratch);
      for (int64_t lane = 0; lane < place.num; ++lane) {
        scales[lane] = scratch.targets[lane].weight * grads[place.first + lane];
        sums[lane] = log_sums[place.first + lane];
      }
      scale_softmax(tile, code.num_bins, sums, scales);
      for (int64_t lane = 0; lane < place.num; ++lane) {
        const Target& target = scratch.targets[lane];
        for (int64_t k = 0; k < target.num; ++k) {
          tile[target.bins[k] * kLanes + lane] -= scales[lane] * target.shares[k];
        }
      }
    }
    store_tile(tile, arguments.layout, code.num_bins, place.num, out + place.logits);
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
