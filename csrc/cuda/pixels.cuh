// What one thread does: which pixels it reads, what becomes of them, where they go.
//
// Free of CUDA's own headers and callable on the host, so that a test runs this very arithmetic on
// a machine without a GPU (tests/ops/cuda_emulation.cpp). A whole image is a patch at (0, 0), so
// one kernel serves both operators.
//
// An output slot is one patch: h x w pixels, interleaved (h, w, 3) or planar (3, h, w). A block
// works on one chunk of a slot. A thread writes 16 bytes at a time, its neighbour the next 16.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "layout.h"

#ifdef __CUDACC__
#define FASTSSL_HD __host__ __device__ __forceinline__
#else
#define FASTSSL_HD inline
#endif

namespace fastssl::cuda {

// A multiple of 3: a thread then meets the same channel first in every round.
constexpr int kThreads = 192;
// Groups that a thread works through: enough reads in flight to hide their latency.
constexpr int kRounds = 4;
constexpr int kGroupsPerBlock = kThreads * kRounds;

// y = (x - centre) * scale for x in 0 .. 255. The low parts hold what float32 lost of the two, so
// that the result is off by the last roundings alone; a value at the centre becomes zero.
struct Coefficients {
  float centre;
  float centre_low;
  float scale;
  float scale_low;
};

// What is cut out of what.
struct Geometry {
  Images images;
  Cut cut;            // corners null: every patch is the whole image
  uint32_t height;    // of a patch, in pixels
  uint32_t width;     // likewise
  int64_t num_slots;  // output patches
};

// All that a launch needs, the same for every thread.
template <typename Out>
struct Job {
  Geometry geometry;
  uint32_t num_groups;          // threads' worth of work in a slot
  uint32_t num_chunks;          // blocks' worth of work in a slot
  Coefficients channels[3];     // used where `by_slot` is null
  const Coefficients* by_slot;  // (slots,)
  Out* out;
};

// Where a patch lies, in the order in which its pixels are written.
struct Source {
  const uint8_t* first;  // top left pixel
  int64_t row_stride;    // bytes
  int32_t step;          // bytes to the next pixel of a row: 3, or -3 where mirrored
  bool grey;
  bool is_valid;  // inside the image, and the order inside the patches
};

// N elements that are written as one.
template <typename Out, int N>
struct alignas(sizeof(Out) * N) Vector {
  Out item[N];
};

template <typename Out>
constexpr int kWide = 16 / static_cast<int>(sizeof(Out));

FASTSSL_HD Source find_source(const Geometry& geometry, int64_t slot) {
  const Images& images = geometry.images;
  const Cut& cut = geometry.cut;
  const int64_t image = slot / cut.num_patches;
  const int64_t place = cut.order ? cut.order[slot] : slot - image * cut.num_patches;
  const bool is_place = place >= 0 && place < cut.num_patches;
  const int64_t patch = image * cut.num_patches + (is_place ? place : 0);
  const int64_t y = cut.corners ? cut.corners[2 * patch] : 0;
  const int64_t x = cut.corners ? cut.corners[2 * patch + 1] : 0;
  const bool is_inside = y >= 0 && x >= 0 && y + geometry.height <= images.height &&
                         x + geometry.width <= images.width;
  const bool mirrored = cut.flip && cut.flip[image];
  const int64_t column = mirrored ? images.width - 1 - x : x;
  return {images.data + image * images.image_stride + y * images.row_stride + 3 * column,
          images.row_stride, mirrored ? -3 : 3,
          cut.grey && cut.grey[cut.grey_by_patch ? patch : image], is_place && is_inside};
}

FASTSSL_HD uint32_t read_word(const uint8_t* address) {
#ifdef __CUDA_ARCH__
  return __ldg(reinterpret_cast<const uint32_t*>(address));
#else
  uint32_t word;
  std::memcpy(&word, address, sizeof(word));
  return word;
#endif
}

// The three bytes at an address as R | G << 8 | B << 16, by one or two aligned words. A word that
// holds a byte of the image may hold up to three that are not; no allocation ends inside a word.
FASTSSL_HD uint32_t read_rgb(const uint8_t* pixel) {
  const auto offset = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(pixel) & 3u);
  const uint8_t* aligned = pixel - offset;
  uint32_t value = read_word(aligned) >> (8 * offset);
  if (offset > 1) {
    value |= read_word(aligned + 4) << (32 - 8 * offset);
  }
  return value & 0xFFFFFFu;
}

// N consecutive bytes at any address, 16 at once where the address allows it.
template <int N>
FASTSSL_HD void read_run(const uint8_t* first, uint32_t (&words)[(N + 3) / 4]) {
  const auto address = reinterpret_cast<uintptr_t>(first);
  if constexpr (N == 16) {
    if (address % 16 == 0) {
#ifdef __CUDA_ARCH__
      const uint4 all = __ldg(reinterpret_cast<const uint4*>(first));
      words[0] = all.x, words[1] = all.y, words[2] = all.z, words[3] = all.w;
#else
      std::memcpy(words, first, N);
#endif
      return;
    }
  }
  const auto offset = static_cast<uint32_t>(address & 3u);
  const uint8_t* aligned = first - offset;
  uint64_t low = read_word(aligned);
  for (int k = 0; k < N / 4; ++k) {
    const bool has_more = k + 1 < N / 4 || offset > 0;
    const uint64_t high = has_more ? read_word(aligned + 4 * (k + 1)) : 0;
    words[k] = static_cast<uint32_t>((high << 32 | low) >> (8 * offset));
    low = high;
  }
}

FASTSSL_HD uint32_t byte_of(uint32_t value, uint32_t shift) { return (value >> shift) & 0xFFu; }

// ITU-R 601 luma with Pillow's rounding, in all three bytes.
FASTSSL_HD uint32_t grey_rgb(uint32_t rgb) {
  const uint32_t luma =
      (19595u * byte_of(rgb, 0) + 38470u * byte_of(rgb, 8) + 7471u * byte_of(rgb, 16) + 0x8000u) >>
      16;
  return luma * 0x010101u;
}

FASTSSL_HD uint32_t read_pixel(const uint8_t* pixel, bool grey) {
  const uint32_t rgb = read_rgb(pixel);
  return grey ? grey_rgb(rgb) : rgb;
}

FASTSSL_HD float apply(uint32_t value, const Coefficients& c) {
  const float distance = (static_cast<float>(value) - c.centre) - c.centre_low;
  return fmaf(distance, c.scale, distance * c.scale_low);
}

// Results of type Out; other types stand beside the kernels.
template <typename Out>
struct Convert;

template <>
struct Convert<uint8_t> {
  static FASTSSL_HD uint8_t run(uint32_t value, const Coefficients&) {
    return static_cast<uint8_t>(value);
  }
};

template <>
struct Convert<float> {
  static FASTSSL_HD float run(uint32_t value, const Coefficients& c) { return apply(value, c); }
};

// Walks a patch pixel by pixel, from the end of a row to the beginning of the next.
struct Walk {
  const uint8_t* pixel;
  uint32_t column;
  uint32_t width;
  int32_t step;
  int64_t to_next_row;

  FASTSSL_HD Walk(const Source& source, uint32_t patch_width, uint32_t index)
      : column(index % patch_width),
        width(patch_width),
        step(source.step),
        to_next_row(source.row_stride - static_cast<int64_t>(patch_width) * source.step) {
    const uint32_t row = index / patch_width;
    pixel = source.first + row * source.row_stride + static_cast<int64_t>(column) * step;
  }

  FASTSSL_HD void advance() {
    pixel += step;
    if (++column == width) {
      column = 0;
      pixel += to_next_row;
    }
  }
};

// The bytes of N interleaved elements, the first of them channel `phase` of the walk's pixel.
template <int N>
struct Bytes {
  static constexpr int kPixels = (N + 1) / 3 + 1;
  uint32_t pixels[kPixels];

  FASTSSL_HD Bytes(Walk walk, uint32_t phase, bool grey) {
    for (uint32_t q = 0; q < kPixels; ++q) {
      // The last pixel is needed only where the group begins late in its first one.
      pixels[q] = 3 * q < phase + N ? read_pixel(walk.pixel, grey) : 0;
      walk.advance();
    }
  }

  FASTSSL_HD uint32_t get(uint32_t k, uint32_t phase, uint32_t shift) const {
    const uint32_t here = k / 3, next = here + 1 < kPixels ? here + 1 : here;
    return byte_of(phase + k % 3 >= 3 ? pixels[next] : pixels[here], shift);
  }
};

// One thread's part of a chunk, written interleaved. N elements go into one store.
template <typename Out, int N>
FASTSSL_HD bool map_interleaved(const Job<Out>& job, int64_t slot, uint32_t chunk,
                                uint32_t thread) {
  static_assert(kThreads % 3 == 0, "the first channel of a thread must not change");
  const Geometry& geometry = job.geometry;
  const Source source = find_source(geometry, slot);
  if (!source.is_valid) {
    return false;
  }
  const uint32_t phase = thread * N % 3;  // channel of the first element
  Coefficients coefficients[3];
  uint32_t shifts[3];
  for (uint32_t k = 0; k < 3; ++k) {
    const uint32_t channel = (phase + k) % 3;
    coefficients[k] = job.by_slot ? job.by_slot[slot] : job.channels[channel];
    shifts[k] = 8 * channel;
  }
  Out* out = job.out + slot * 3 * geometry.height * geometry.width;
  const bool is_plain = N >= 4 && !source.grey && source.step == 3;
  for (uint32_t round = 0; round < kRounds; ++round) {
    const uint32_t group = (chunk * kRounds + round) * kThreads + thread;
    if (group >= job.num_groups) {
      break;
    }
    const Walk walk(source, geometry.width, group * N / 3);
    Vector<Out, N> result;
    if (is_plain && 3 * walk.column + phase + N <= 3 * geometry.width) {
      // The elements are N consecutive bytes of one row.
      uint32_t words[(N + 3) / 4];
      read_run<N>(walk.pixel + phase, words);
      for (uint32_t k = 0; k < N; ++k) {
        result.item[k] = Convert<Out>::run(byte_of(words[k / 4], 8 * (k % 4)), coefficients[k % 3]);
      }
    } else {
      const Bytes<N> bytes(walk, phase, source.grey);
      for (uint32_t k = 0; k < N; ++k) {
        result.item[k] = Convert<Out>::run(bytes.get(k, phase, shifts[k % 3]), coefficients[k % 3]);
      }
    }
    reinterpret_cast<Vector<Out, N>*>(out)[group] = result;
  }
  return true;
}

// One thread's part of a chunk, written plane by plane. N pixels go into three stores.
template <typename Out, int N>
FASTSSL_HD bool map_planar(const Job<Out>& job, int64_t slot, uint32_t chunk, uint32_t thread) {
  const Geometry& geometry = job.geometry;
  const Source source = find_source(geometry, slot);
  if (!source.is_valid) {
    return false;
  }
  const int64_t plane = static_cast<int64_t>(geometry.height) * geometry.width;
  Out* out = job.out + slot * 3 * plane;
  for (uint32_t round = 0; round < kRounds; ++round) {
    const uint32_t group = (chunk * kRounds + round) * kThreads + thread;
    if (group >= job.num_groups) {
      break;
    }
    Walk walk(source, geometry.width, group * N);
    uint32_t pixels[N];
    for (uint32_t q = 0; q < N; ++q) {
      pixels[q] = read_pixel(walk.pixel, source.grey);
      walk.advance();
    }
    for (uint32_t channel = 0; channel < 3; ++channel) {
      const Coefficients c = job.by_slot ? job.by_slot[slot] : job.channels[channel];
      Vector<Out, N> result;
      for (uint32_t q = 0; q < N; ++q) {
        result.item[q] = Convert<Out>::run(byte_of(pixels[q], 8 * channel), c);
      }
      reinterpret_cast<Vector<Out, N>*>(out + channel * plane)[group] = result;
    }
  }
  return true;
}

// Exact sums over the pixels and channels of a patch, or of one thread's part of it.
struct Sums {
  unsigned long long values;
  unsigned long long squares;
};

FASTSSL_HD Sums sum_part(const Geometry& geometry, const Source& source, uint32_t thread,
                         uint32_t num_threads) {
  Sums sums = {0, 0};
  const uint32_t num_pixels = geometry.height * geometry.width;
  for (uint32_t index = thread; index < num_pixels; index += num_threads) {
    const uint32_t rgb = read_pixel(Walk(source, geometry.width, index).pixel, source.grey);
    const uint32_t red = byte_of(rgb, 0), green = byte_of(rgb, 8), blue = byte_of(rgb, 16);
    sums.values += red + green + blue;
    sums.squares += red * red + green * green + blue * blue;
  }
  return sums;
}

// Each number in two floats: the nearest one, and what is left.
FASTSSL_HD Coefficients split_coefficients(double centre, double scale) {
  const auto centre_high = static_cast<float>(centre), scale_high = static_cast<float>(scale);
  return {centre_high, static_cast<float>(centre - centre_high), scale_high,
          static_cast<float>(scale - scale_high)};
}

// (x / 255 - mean) / std.
FASTSSL_HD Coefficients normalizing(double mean, double deviation) {
  return split_coefficients(255.0 * mean, 1.0 / (255.0 * deviation));
}

// (x - mean) / max(std, 1 / sqrt(count)): a flat patch becomes zeros.
FASTSSL_HD Coefficients standardizing(const Sums& sums, uint32_t num_pixels) {
  const double count = 3.0 * num_pixels;
  // count * squares - values^2 cancels for flat patches, so it is taken in integers.
  const auto spread = static_cast<unsigned __int128>(sums.squares) * (3ull * num_pixels) -
                      static_cast<unsigned __int128>(sums.values) * sums.values;
  const double deviation = sqrt(static_cast<double>(spread)) / count;
  const double least = 1.0 / sqrt(count);
  return split_coefficients(static_cast<double>(sums.values) / count,
                            1.0 / (deviation > least ? deviation : least));
}

}  // namespace fastssl::cuda
