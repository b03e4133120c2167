// What one thread does for augment_views. Callable on the host, as pixels.cuh, whose stores it
// uses.
#pragma once

#include "cuda/color_kernels.cuh"

namespace fastssl::cuda {

// Pixels that a thread makes at once where the image allows it: three stores.
constexpr int kAugmentPixels = 4;

// What is done to the pixels of one copy.
struct Recipe {
  float factor[3];  // with the scale
  float shift[3];
  bool is_grey;
  bool mirrored;
  int64_t down, right;  // where the result's corner lies in the mirrored image
  int64_t top, left;    // of the square of zeros
};

// `slot` counts the copies of all images.
FASTSSL_HD Recipe make_recipe(const Augmentation& augmentation, int64_t slot) {
  Recipe recipe = {};
  for (int k = 0; k < 3; ++k) {
    recipe.factor[k] = augmentation.scale[k];
    if (augmentation.gain != nullptr) {
      recipe.factor[k] *= augmentation.gain[3 * slot + k];
      recipe.shift[k] = augmentation.shift[3 * slot + k];
    }
  }
  recipe.is_grey = augmentation.grey != nullptr && augmentation.grey[slot];
  recipe.mirrored = augmentation.flip != nullptr && augmentation.flip[slot];
  if (augmentation.offset != nullptr) {
    recipe.down = augmentation.offset[2 * slot];
    recipe.right = augmentation.offset[2 * slot + 1];
  }
  if (augmentation.corner != nullptr) {
    recipe.top = augmentation.corner[2 * slot];
    recipe.left = augmentation.corner[2 * slot + 1];
  }
  return recipe;
}

struct Augmented {
  float channel[3];
};

// The pixel of the result at (y, x): zeros outside of the image and where it is cut out.
FASTSSL_HD Augmented find_augmented(const Images& images, const Augmentation& augmentation,
                                    const Recipe& recipe, const float* linear, int64_t image,
                                    int64_t y, int64_t x) {
  const int64_t row = y + recipe.down, column = x + recipe.right;
  const bool is_inside = row >= 0 && row < images.height && column >= 0 && column < images.width;
  const bool is_cut = y >= recipe.top && y < recipe.top + augmentation.cutout && x >= recipe.left &&
                      x < recipe.left + augmentation.cutout;
  if (!is_inside || is_cut) {
    return {{0.0f, 0.0f, 0.0f}};
  }
  const int64_t from = recipe.mirrored ? images.width - 1 - column : column;
  const uint8_t* pixel =
      images.data + image * images.image_stride + row * images.row_stride + 3 * from;
  float colours[3];
  if (augmentation.is_lab) {
    const Lab lab = find_lab(Light(pixel, linear), false);
    colours[0] = lab.lightness, colours[1] = lab.a, colours[2] = lab.b;
  } else {
    for (int k = 0; k < 3; ++k) {
      colours[k] = static_cast<float>(pixel[k]);
    }
  }
  Augmented result;
  for (int k = 0; k < 3; ++k) {
    result.channel[k] = (colours[k] - augmentation.centre[k]) * recipe.factor[k] + recipe.shift[k];
  }
  if (recipe.is_grey) {
    const float mean = (result.channel[0] + result.channel[1] + result.channel[2]) * kThird;
    result.channel[0] = result.channel[1] = result.channel[2] = mean;
  }
  return result;
}

// All that a launch needs, the same for every thread.
template <typename Out>
struct AugmentJob {
  Images images;
  Augmentation augmentation;
  uint32_t num_groups;  // threads' worth of work in a copy
  uint32_t num_chunks;  // blocks' worth of work in a copy
  Out* out;
};

// One thread's part of a chunk: N pixels go into three stores. `linear` is the table of linear_of.
template <typename Out, int N, bool kInterleaved>
FASTSSL_HD void augment_part(const AugmentJob<Out>& job, const float* linear, int64_t slot,
                             uint32_t chunk, uint32_t thread) {
  const Images& images = job.images;
  const int64_t image = slot / job.augmentation.copies;
  const Recipe recipe = make_recipe(job.augmentation, slot);
  const int64_t plane = images.height * images.width;
  Out* out = job.out + slot * 3 * plane;
  for (uint32_t round = 0; round < kRounds; ++round) {
    const uint32_t group = (chunk * kRounds + round) * kThreads + thread;
    if (group >= job.num_groups) {
      return;
    }
    const auto width = static_cast<uint32_t>(images.width);
    uint32_t y = group * N / width, x = group * N % width;
    Vector<Out, N> stores[3];
    for (int q = 0; q < N; ++q) {
      const Augmented found = find_augmented(images, job.augmentation, recipe, linear, image, y, x);
      for (int k = 0; k < 3; ++k) {
        const int place = kInterleaved ? 3 * q + k : N * k + q;
        stores[place / N].item[place % N] = Cast<Out>::store(found.channel[k]);
      }
      if (++x == width) {
        x = 0;
        ++y;
      }
    }
    for (int k = 0; k < 3; ++k) {
      const int64_t first = kInterleaved ? 3 * N * static_cast<int64_t>(group) + N * k
                                         : k * plane + N * static_cast<int64_t>(group);
      *reinterpret_cast<Vector<Out, N>*>(out + first) = stores[k];
    }
  }
}

}  // namespace fastssl::cuda
