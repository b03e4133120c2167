// Square patches of every image: cut, mirror, grey, normalise or standardise, order, cast and lay
// out in one pass; standardising reads the pixels of a patch once more, from the cache.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "cpu/dispatch.h"
#include "cpu/pages.h"
#include "cpu/pixels.h"

namespace fastssl {
namespace {

// One patch of one image.
struct Patch {
  const Images& images;
  int64_t image;
  int64_t y;
  int64_t x;
  int64_t size;
  bool mirrored;
  bool grey;

  Row row(int64_t i) const { return cut_row(images, image, y + i, x, size, mirrored); }
};

Patch patch_of_slot(const Images& images, const Cut& cut, int64_t slot) {
  const int64_t image = slot / cut.num_patches;
  const int64_t place = cut.order ? cut.order[slot] : slot % cut.num_patches;
  const int64_t source = image * cut.num_patches + place;
  const bool grey = cut.grey && cut.grey[cut.grey_by_patch ? source : image];
  return {images,
          image,
          cut.corners[2 * source],
          cut.corners[2 * source + 1],
          cut.size,
          cut.flip && cut.flip[image],
          grey};
}

void check_values(const Images& images, const Cut& cut) {
  for (int64_t i = 0; i < images.num * cut.num_patches; ++i) {
    const int64_t y = cut.corners[2 * i], x = cut.corners[2 * i + 1];
    TORCH_CHECK_VALUE(
        y >= 0 && x >= 0 && y + cut.size <= images.height && x + cut.size <= images.width, "patch ",
        i % cut.num_patches, " of image ", i / cut.num_patches, " at (y, x) = (", y, ", ", x,
        ") with side ", cut.size, " crosses the border of the ", images.height, " x ", images.width,
        " image; corners must lie in 0 .. ", images.height - cut.size, " and 0 .. ",
        images.width - cut.size);
    TORCH_CHECK_VALUE(!cut.order || (cut.order[i] >= 0 && cut.order[i] < cut.num_patches), "order[",
                      i / cut.num_patches, ", ", i % cut.num_patches, "] must lie in 0 .. ",
                      cut.num_patches - 1, ", got ", cut.order[i]);
  }
}

// uint8 (S, S, 3), as it is.
void copy_patch(const Patch& patch, uint8_t* out) {
  for (int64_t i = 0; i < patch.size; ++i, out += 3 * patch.size) {
    const Row row = patch.row(i);
    if (!patch.mirrored && !patch.grey) {
      std::memcpy(out, row.first, 3 * patch.size);
      continue;
    }
    const uint8_t* pixel = row.first;
    for (int64_t j = 0; j < patch.size; ++j, pixel += row.step) {
      const uint8_t value = patch.grey ? luma(pixel) : 0;
      for (int channel = 0; channel < 3; ++channel) {
        out[3 * j + channel] = patch.grey ? value : pixel[channel];
      }
    }
  }
}

struct Moments {
  double mean;
  double std;
};

// Mean and population standard deviation over pixels and channels, from exact integer sums.
Moments patch_moments(const Patch& patch) {
  uint64_t sum = 0, sum_of_squares = 0;
  for (int64_t i = 0; i < patch.size; ++i) {
    const Row row = patch.row(i);
    // 32 bits hold the squares of 66,051 values; 8192 pixels at a time stay below that.
    for (int64_t start = 0; start < patch.size; start += 8192) {
      const int64_t stop = std::min<int64_t>(patch.size, start + 8192);
      uint32_t part = 0, part_of_squares = 0;
      if (patch.grey) {
        for (int64_t j = start; j < stop; ++j) {
          const uint32_t value = luma(row.first + j * row.step);
          part += 3 * value;
          part_of_squares += 3 * value * value;
        }
      } else {
        const uint8_t* leftmost =
            patch.mirrored ? row.first - 3 * (stop - 1) : row.first + 3 * start;
        for (int64_t j = 0; j < 3 * (stop - start); ++j) {
          const uint32_t value = leftmost[j];
          part += value;
          part_of_squares += value * value;
        }
      }
      sum += part;
      sum_of_squares += part_of_squares;
    }
  }
  const double count = 3.0 * static_cast<double>(patch.size) * static_cast<double>(patch.size);
  const double mean = static_cast<double>(sum) / count;
  // count * sum of squares - sum^2 cancels for flat patches, so it is taken in integers.
  const auto spread =
      static_cast<unsigned __int128>(sum_of_squares) * static_cast<uint64_t>(count) -
      static_cast<unsigned __int128>(sum) * sum;
  return {mean, std::sqrt(static_cast<double>(spread)) / count};
}

// (value - mean) / max(std, 1 / sqrt(count)): a flat patch becomes zeros.
template <typename Out>
Table<Out> standardize_table(const Patch& patch) {
  const Moments moments = patch_moments(patch);
  const double floor = 1.0 / (std::sqrt(3.0) * static_cast<double>(patch.size));
  const double scale = 1.0 / std::max(moments.std, floor);
  Table<Out> table;
  for (int value = 0; value < 256; ++value) {
    table[value] = static_cast<Out>(static_cast<float>((value - moments.mean) * scale));
  }
  return table;
}

template <typename Out>
void map_patch(const Patch& patch, const Table<Out>& red, const Table<Out>& green,
               const Table<Out>& blue, bool channels_last, Out* out) {
  for (int64_t i = 0; i < patch.size; ++i) {
    const Target<Out> target = channels_last
                                   ? Target<Out>{out + 3 * i * patch.size, 3, 1}
                                   : Target<Out>{out + i * patch.size, 1, patch.size * patch.size};
    map_row(patch.row(i), patch.grey, red, green, blue, target);
  }
}

// Calls work(patch, first element of its output) for every output slot, on all threads.
template <typename Out, typename Work>
void for_each_slot(const Images& images, const Cut& cut, Out* out, const Work& work) {
  const int64_t elements = 3 * cut.size * cut.size;
  const int64_t grain = std::max<int64_t>(1, 32768 / elements);
  at::parallel_for(0, images.num * cut.num_patches, grain, [&](int64_t begin, int64_t end) {
    for (int64_t slot = begin; slot < end; ++slot) {
      work(patch_of_slot(images, cut, slot), out + slot * elements);
    }
  });
}

template <typename Out>
void extract_floating(const Images& images, const Cut& cut, const Floats& mean, const Floats& std,
                      bool standardize, bool channels_last, Out* out) {
  if (standardize) {
    for_each_slot(images, cut, out, [&](const Patch& patch, Out* place) {
      const Table<Out> table = standardize_table<Out>(patch);
      map_patch(patch, table, table, table, channels_last, place);
    });
  } else {
    const Tables<Out> tables = normalize_tables<Out>(*mean, *std);
    for_each_slot(images, cut, out, [&](const Patch& patch, Out* place) {
      map_patch(patch, tables[0], tables[1], tables[2], channels_last, place);
    });
  }
}

at::Tensor extract_patches(const at::Tensor& images_in, const at::Tensor& corners_in, int64_t size,
                           const std::optional<at::Tensor>& flip_in,
                           const std::optional<at::Tensor>& grey_in,
                           const std::optional<at::Tensor>& order_in, Floats mean, Floats std,
                           bool standardize, at::ScalarType dtype, bool channels_last) {
  check_options(mean, std, standardize, dtype);
  const CutArguments arguments(images_in, corners_in, size, flip_in, grey_in, order_in);
  const Images& view = arguments.view;
  const Cut& cut = arguments.cut;
  check_values(view, cut);
  at::Tensor out = arguments.empty_patches(dtype, channels_last);
  if (out.numel() == 0) {
    return out;
  }
  advise_huge_pages(out);
  if (dtype == at::kByte) {
    for_each_slot(view, cut, out.mutable_data_ptr<uint8_t>(), copy_patch);
    return out;
  }
  dispatch_floating(dtype, [&](auto zero) {
    using Out = decltype(zero);
    extract_floating<Out>(view, cut, mean, std, standardize, channels_last,
                          out.mutable_data_ptr<Out>());
  });
  return out;
}

}  // namespace
}  // namespace fastssl

TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("extract_patches", &fastssl::extract_patches); }
