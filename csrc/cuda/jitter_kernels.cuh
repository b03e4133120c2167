// What one thread does for color_jitter. Callable on the host, as pixels.cuh, whose places and
// stores it uses: a whole image is one patch.
#pragma once

#include "cuda/color_kernels.cuh"

namespace fastssl::cuda {

// Pixels that a thread paints at once where the image allows it: three stores.
constexpr int kPaintPixels = 4;

// What is done to the pixels of one image.
struct Brush {
  float red_share, green_share, blue_share;  // of grey
  bool is_grey;
  float before;  // added before the saturation changes
  float factor;
  float after;
};

FASTSSL_HD Brush make_brush(const Jitter& jitter, int64_t image) {
  // Device code may use a constant number, not an array of them.
  constexpr float kRed = kLumaOfRgb[0], kGreen = kLumaOfRgb[1], kBlue = kLumaOfRgb[2];
  const float shift = jitter.brightness[image] * 255.0f;
  const bool is_first = jitter.brightness_first[image];
  return {jitter.is_mean ? kThird : kRed,  jitter.is_mean ? kThird : kGreen,
          jitter.is_mean ? kThird : kBlue, jitter.grey && jitter.grey[image],
          is_first ? shift : 0.0f,         jitter.saturation[image],
          is_first ? 0.0f : shift};
}

struct Painted {
  float channel[3];
};

FASTSSL_HD float clip_painted(float x) { return x < 0.0f ? 0.0f : x > 255.0f ? 255.0f : x; }

// Each channel keeps its share of the way from the greatest down: that is saturation in HSV.
FASTSSL_HD Painted paint(uint32_t rgb, const Brush& brush) {
  float red = static_cast<float>(byte_of(rgb, 0));
  float green = static_cast<float>(byte_of(rgb, 8));
  float blue = static_cast<float>(byte_of(rgb, 16));
  if (brush.is_grey) {
    red = green = blue =
        brush.red_share * red + brush.green_share * green + brush.blue_share * blue;
  }
  red += brush.before, green += brush.before, blue += brush.before;
  const float most = fmaxf(fmaxf(red, green), blue);
  const float depth = most - fminf(fminf(red, green), blue);
  // The saturation stops at 1, where the least of the channels is 0.
  const float ratio = fminf(brush.factor, fmaxf(most, 0.0f) / fmaxf(depth, kLeastDepth));
  return {{clip_painted(most - (most - red) * ratio + brush.after),
           clip_painted(most - (most - green) * ratio + brush.after),
           clip_painted(most - (most - blue) * ratio + brush.after)}};
}

// Sums over the painted values of an image, or of one thread's part of them.
struct PaintedSums {
  double values;
  double squares;

  FASTSSL_HD void add(const PaintedSums& other) {
    values += other.values;
    squares += other.squares;
  }
};

FASTSSL_HD PaintedSums sum_painted(const Geometry& geometry, const Jitter& jitter, int64_t image,
                                   uint32_t thread, uint32_t num_threads) {
  const Source source = find_source(geometry, image);
  const Brush brush = make_brush(jitter, image);
  PaintedSums sums = {0.0, 0.0};
  const uint32_t num_pixels = geometry.height * geometry.width;
  for (uint32_t index = thread; index < num_pixels; index += num_threads) {
    const Walk walk(source, geometry.width, index);
    const Painted painted = paint(read_rgb(walk.pixel), brush);
    for (const float value : painted.channel) {
      sums.add({value, static_cast<double>(value) * value});
    }
  }
  return sums;
}

// (x - mean) / max(std, 1 / sqrt(count)): a flat image becomes zeros. In doubles squares cancel far
// below the least deviation.
FASTSSL_HD Coefficients standardizing_painted(const PaintedSums& sums, uint32_t num_pixels) {
  const double count = 3.0 * num_pixels;
  const double mean = sums.values / count, variance = sums.squares / count - mean * mean;
  return split_coefficients(mean, 1.0 / sqrt(variance > 1.0 / count ? variance : 1.0 / count));
}

FASTSSL_HD float scale_painted(float value, const Coefficients& c) {
  const float distance = (value - c.centre) - c.centre_low;
  return fmaf(distance, c.scale, distance * c.scale_low);
}

// All that a launch needs, the same for every thread.
template <typename Out>
struct PaintJob {
  Geometry geometry;
  Jitter jitter;
  uint32_t num_groups;           // threads' worth of work in an image
  uint32_t num_chunks;           // blocks' worth of work in an image
  Coefficients channels[3];      // used where `by_image` is null
  const Coefficients* by_image;  // (B,)
  Out* out;
};

// One thread's part of a chunk: N pixels go into three stores.
template <typename Out, int N, bool kInterleaved>
FASTSSL_HD void paint_part(const PaintJob<Out>& job, int64_t image, uint32_t chunk,
                           uint32_t thread) {
  const Geometry& geometry = job.geometry;
  const Source source = find_source(geometry, image);
  const Brush brush = make_brush(job.jitter, image);
  const int64_t plane = static_cast<int64_t>(geometry.height) * geometry.width;
  Out* out = job.out + image * 3 * plane;
  Coefficients coefficients[3];
  for (int k = 0; k < 3; ++k) {
    coefficients[k] = job.by_image ? job.by_image[image] : job.channels[k];
  }
  for (uint32_t round = 0; round < kRounds; ++round) {
    const uint32_t group = (chunk * kRounds + round) * kThreads + thread;
    if (group >= job.num_groups) {
      return;
    }
    Walk walk(source, geometry.width, group * N);
    Vector<Out, N> stores[3];
    for (int q = 0; q < N; ++q) {
      const Painted painted = paint(read_rgb(walk.pixel), brush);
      for (int k = 0; k < 3; ++k) {
        const int place = kInterleaved ? 3 * q + k : N * k + q;
        stores[place / N].item[place % N] =
            Cast<Out>::store(scale_painted(painted.channel[k], coefficients[k]));
      }
      walk.advance();
    }
    for (int k = 0; k < 3; ++k) {
      const int64_t first = kInterleaved ? 3 * N * static_cast<int64_t>(group) + N * k
                                         : k * plane + N * static_cast<int64_t>(group);
      *reinterpret_cast<Vector<Out, N>*>(out + first) = stores[k];
    }
  }
}

}  // namespace fastssl::cuda
