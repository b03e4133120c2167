// What one thread does for the colour operators. Callable on the host, as pixels.cuh.
//
// Lab: a thread converts one pixel, or the pixels that share one pair of a and b.
//
// Loss: several threads share a pixel, each with a slice of its bins, in three phases with a
// barrier after each of the first two. No thread holds a list: the K nearest bins are those up to
// the last of them, by distance and then by number, which a first look at the candidates finds.
#pragma once

#include <cfloat>

#include "cuda/pixels.cuh"

namespace fastssl::cuda {

// What is stored from a float; other types stand beside the kernels.
template <typename Out>
struct Cast;

template <>
struct Cast<float> {
  static FASTSSL_HD float store(float value) { return value; }
  static FASTSSL_HD float load(float value) { return value; }
};

// ---- Lab ----

struct Lab {
  float lightness;
  float a;
  float b;
};

FASTSSL_HD float linear_of(int value) {
  const float x = static_cast<float>(value) / 255.0f;
  return x > 0.04045f ? powf((x + 0.055f) / 1.055f, 2.4f) : x / 12.92f;
}

FASTSSL_HD float lab_f(float t) { return t > 0.008856f ? cbrtf(t) : 7.787f * t + 16.0f / 116.0f; }

// Device code may use a constant number, not an array of them.
constexpr float kXofR = kXyzOfRgb[0][0], kXofG = kXyzOfRgb[0][1], kXofB = kXyzOfRgb[0][2];
constexpr float kYofR = kXyzOfRgb[1][0], kYofG = kXyzOfRgb[1][1], kYofB = kXyzOfRgb[1][2];
constexpr float kZofR = kXyzOfRgb[2][0], kZofG = kXyzOfRgb[2][1], kZofB = kXyzOfRgb[2][2];

// Linear light of a pixel, by a table of 256.
struct Light {
  float red, green, blue;

  FASTSSL_HD Light(const uint8_t* pixel, const float* linear)
      : red(linear[pixel[0]]), green(linear[pixel[1]]), blue(linear[pixel[2]]) {}

  FASTSSL_HD float x() const { return kXofR * red + kXofG * green + kXofB * blue; }
  FASTSSL_HD float y() const { return kYofR * red + kYofG * green + kYofB * blue; }
  FASTSSL_HD float z() const { return kZofR * red + kZofG * green + kZofB * blue; }
};

FASTSSL_HD float find_lightness(float fy, bool eight_bit) {
  const float lightness = 116.0f * fy - 16.0f;
  return eight_bit ? rintf(lightness * 2.55f) * (100.0f / 255.0f) : lightness;
}

FASTSSL_HD Lab find_lab(const Light& light, bool eight_bit) {
  const float fx = lab_f(light.x()), fy = lab_f(light.y()), fz = lab_f(light.z());
  const float a = 500.0f * (fx - fy), b = 200.0f * (fy - fz);
  return {find_lightness(fy, eight_bit), eight_bit ? rintf(a) : a, eight_bit ? rintf(b) : b};
}

// One pixel of rgb_to_lab, by its number in the batch.
FASTSSL_HD void convert_pixel(const Images& images, const float* linear, bool eight_bit,
                              int64_t index, float* out) {
  const int64_t plane = images.height * images.width;
  const int64_t image = index / plane, place = index - image * plane;
  const int64_t y = place / images.width, x = place - y * images.width;
  const uint8_t* pixel = images.data + image * images.image_stride + y * images.row_stride + 3 * x;
  const Lab lab = find_lab(Light(pixel, linear), eight_bit);
  out += 3 * image * plane + place;
  out[0] = lab.lightness;
  out[plane] = lab.a;
  out[2 * plane] = lab.b;
}

template <typename Out>
struct SplitJob {
  Images images;
  Split split;
  Out* light;
  float* ab;
};

// The pixels of one pair of a and b, by its number in the batch.
template <typename Out>
FASTSSL_HD void split_cell(const SplitJob<Out>& job, const float* linear, int64_t cell) {
  const Images& images = job.images;
  const int64_t stride = job.split.stride;
  const int64_t rows = images.height / stride, columns = images.width / stride;
  const int64_t image = cell / (rows * columns), place = cell - image * rows * columns;
  const int64_t row = place / columns, column = place - row * columns;
  const bool mirrored = job.split.flip && job.split.flip[image];
  const uint8_t* data = images.data + image * images.image_stride;
  float a = 0.0f, b = 0.0f;
  for (int64_t y = row * stride; y < (row + 1) * stride; ++y) {
    Out* out = job.light + (image * images.height + y) * images.width;
    for (int64_t x = column * stride; x < (column + 1) * stride; ++x) {
      const int64_t from = mirrored ? images.width - 1 - x : x;
      const Light light(data + y * images.row_stride + 3 * from, linear);
      float lightness;
      if (job.split.mean || (y == row * stride && x == column * stride)) {
        const Lab lab = find_lab(light, job.split.eight_bit);
        lightness = lab.lightness;
        a += lab.a;
        b += lab.b;
      } else {
        lightness = find_lightness(lab_f(light.y()), job.split.eight_bit);
      }
      out[x] = Cast<Out>::store(lightness - kMiddleLightness);
    }
  }
  const float share = job.split.mean ? 1.0f / static_cast<float>(stride * stride) : 1.0f;
  float* out = job.ab + 2 * image * rows * columns + place;
  out[0] = share * a;
  out[rows * columns] = share * b;
}

// ---- Loss ----

// The last bin that is kept: by distance, then by number.
struct Last {
  float distance;
  int32_t bin;
};

FASTSSL_HD bool is_up_to(float distance, int32_t bin, const Last& last) {
  return distance < last.distance || (distance == last.distance && bin <= last.bin);
}

FASTSSL_HD Last later(const Last& one, const Last& other) {
  return is_up_to(one.distance, one.bin, other) ? other : one;
}

// A running logarithm of a sum of exponentials.
struct LogSum {
  float greatest;
  float sum;

  static FASTSSL_HD LogSum of_nothing() { return {-FLT_MAX, 0.0f}; }

  FASTSSL_HD void add(float value) {
    if (value > greatest) {
      sum = sum * expf(greatest - value) + 1.0f;
      greatest = value;
    } else {
      sum += expf(value - greatest);
    }
  }

  FASTSSL_HD void add(const LogSum& other) {
    const float both = other.greatest > greatest ? other.greatest : greatest;
    sum = sum * expf(greatest - both) + other.sum * expf(other.greatest - both);
    greatest = both;
  }

  FASTSSL_HD float value() const { return greatest + logf(sum); }
};

// Sums over the bins of a target, before they are scaled to shares.
struct Shares {
  float sum;
  float dot;  // with the logits

  FASTSSL_HD void add(const Shares& other) {
    sum += other.sum;
    dot += other.dot;
  }
};

// All that a launch needs. The forward pass writes losses and log_sums, the other one grad.
template <typename T>
struct LossJob {
  ColorCode code;
  Logits layout;
  const T* logits;
  const float* ab;
  const bool* counted;  // (B,) or null
  float* losses;
  float* log_sums;
  const float* grads;
  const float* kept_log_sums;
  T* grad;
};

// Not to be contracted: two looks at one distance must agree to the bit.
FASTSSL_HD float square(float x) {
#ifdef __CUDA_ARCH__
  return __fmul_rn(x, x);
#else
  return x * x;
#endif
}

// What the threads of one pixel know.
template <typename T>
struct Pixel {
  const LossJob<T>* job;
  int64_t first;  // of its logits
  int64_t place;  // in the batch
  bool is_inside;
  bool is_counted;
  float a, b;
  const int16_t* list;  // candidates; null for all bins
  int32_t num;
  float least;  // squared distance of the nearest bin
  float limit;  // no share beyond it
  int32_t nearest;

  FASTSSL_HD Pixel(const LossJob<T>& job_in, int64_t image, int64_t pixel) : job(&job_in) {
    const Logits& layout = job->layout;
    const ColorCode& code = job->code;
    is_inside = image < layout.num_images && pixel < layout.num_pixels;
    is_counted = is_inside && (!job->counted || job->counted[image]);
    place = image * layout.num_pixels + pixel;
    first = image * layout.num_pixels * code.num_bins + pixel * layout.pixel_stride;
    if (!is_counted) {
      return;
    }
    const float* colour = job->ab + 2 * image * layout.num_pixels + pixel;
    a = colour[0];
    b = colour[layout.num_pixels];
    list = nullptr;
    num = static_cast<int32_t>(code.num_bins);
    constexpr float kHalfPlane = 0.5f * kCellSide * kCells;
    const float row = (a + kHalfPlane) / kCellSide, column = (b + kHalfPlane) / kCellSide;
    if (row >= 0 && row < kCells && column >= 0 && column < kCells) {
      const int64_t cell = static_cast<int64_t>(row) * kCells + static_cast<int64_t>(column);
      list = code.candidates + code.offsets[cell];
      num = code.offsets[cell + 1] - code.offsets[cell];
    }
    least = FLT_MAX;
    nearest = 0;
    for (int32_t i = 0; i < num; ++i) {
      const float distance = distance_of(bin_of(i));
      if (distance < least) {
        least = distance;
        nearest = bin_of(i);
      }
    }
    limit = least + kLeastLogShare / code.scale;
  }

  FASTSSL_HD int32_t bin_of(int32_t candidate) const { return list ? list[candidate] : candidate; }

  FASTSSL_HD float distance_of(int32_t bin) const {
    const float* colour = job->code.bins + 2 * bin;
    return square(a - colour[0]) + square(b - colour[1]);
  }

  FASTSSL_HD float logit(int32_t bin) const {
    return Cast<T>::load(job->logits[first + bin * job->layout.bin_stride]);
  }

  FASTSSL_HD float share_of(float distance) const {
    return expf((distance - least) * job->code.scale);
  }

  FASTSSL_HD bool has_share(float distance, int32_t bin, const Last& last) const {
    return distance <= limit && is_up_to(distance, bin, last);
  }

  FASTSSL_HD float weight() const { return job->code.weights ? job->code.weights[nearest] : 1.0f; }

  // Phase 1: the last bin that is kept among this slice's candidates.
  FASTSSL_HD Last find_last(int32_t slice, int32_t num_slices) const {
    Last last = {-1.0f, -1};
    for (int32_t i = slice; is_counted && i < num; i += num_slices) {
      const int32_t bin = bin_of(i);
      const float distance = distance_of(bin);
      if (distance <= limit && count_before(distance, bin) < job->code.num_neighbors) {
        last = later(last, {distance, bin});
      }
    }
    return last;
  }

  FASTSSL_HD int64_t count_before(float distance, int32_t bin) const {
    int64_t before = 0;
    for (int32_t i = 0; num > job->code.num_neighbors && i < num; ++i) {
      const int32_t other = bin_of(i);
      const float its = distance_of(other);
      before += its < distance || (its == distance && other < bin);
    }
    return before;
  }

  // Phase 1 of the forward pass: this slice's logits.
  FASTSSL_HD LogSum find_log_sum(int32_t slice, int32_t num_slices) const {
    LogSum result = LogSum::of_nothing();
    for (int32_t bin = slice; is_counted && bin < job->code.num_bins; bin += num_slices) {
      result.add(logit(bin));
    }
    return result;
  }

  // Phase 2: this slice's part of the target.
  FASTSSL_HD Shares find_shares(const Last& last, int32_t slice, int32_t num_slices,
                                bool with_logits) const {
    Shares shares = {0.0f, 0.0f};
    for (int32_t i = slice; is_counted && i < num; i += num_slices) {
      const int32_t bin = bin_of(i);
      const float distance = distance_of(bin);
      if (has_share(distance, bin, last)) {
        const float share = share_of(distance);
        shares.sum += share;
        shares.dot += with_logits ? share * logit(bin) : 0.0f;
      }
    }
    return shares;
  }

  // Phase 3 of the forward pass, for one thread of the pixel.
  FASTSSL_HD void write_loss(const LogSum& log_sum, const Shares& shares) const {
    if (!is_inside) {
      return;
    }
    const float value = is_counted ? log_sum.value() : 0.0f;
    job->log_sums[place] = value;
    job->losses[place] = is_counted ? weight() * (value - shares.dot / shares.sum) : 0.0f;
  }

  // Phase 3 of the backward pass: this slice's bins.
  FASTSSL_HD void write_grad(const Last& last, const Shares& shares, int32_t slice,
                             int32_t num_slices) const {
    if (!is_inside) {
      return;
    }
    // A colour that is no number has no bins: 0 / 0 makes all of its gradient NaN.
    const float scale =
        is_counted ? job->grads[place] * weight() * (shares.sum / shares.sum) : 0.0f;
    const float log_sum = job->kept_log_sums[place];
    for (int32_t bin = slice; bin < job->code.num_bins; bin += num_slices) {
      float value = 0.0f;
      if (is_counted) {
        value = expf(logit(bin) - log_sum);
        const float distance = distance_of(bin);
        if (has_share(distance, bin, last)) {
          value -= share_of(distance) / shares.sum;
        }
        value *= scale;
      }
      job->grad[first + bin * job->layout.bin_stride] = Cast<T>::store(value);
    }
  }
};

}  // namespace fastssl::cuda
