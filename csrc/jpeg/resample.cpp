#include "jpeg/resample.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#if defined(__x86_64__) && defined(__GNUC__)
#define FASTSSL_AVX2 1
#include <immintrin.h>
#endif

namespace fastssl::jpeg {
namespace {

constexpr int kPrecision = 32 - 8 - 2;
constexpr int32_t kHalf = 1 << (kPrecision - 1);
constexpr int kLowBits = 15;
constexpr int32_t kLowMask = (1 << kLowBits) - 1;
// Above it Pillow's own box arithmetic, in single precision, rounds.
constexpr int32_t kMaxSide = 1 << 24;
constexpr int64_t kMaxPixels = int64_t{1} << 29;

double weigh(int32_t filter, double x) {
  if (filter == 1) {
    return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
  }
  return std::max(0.0, 1.0 - std::abs(x));
}

// Computes the weights of an axis, unless `taps` holds them already.
//
// begin, length: the part of the num_in pixels that is resized.
void plan_taps(int32_t num_in, double begin, double length, int32_t num_out, int32_t filter,
               Taps* taps) {
  if (taps->num_in == num_in && taps->begin == begin && taps->length == length &&
      taps->num_out == num_out && taps->filter == filter) {
    return;
  }
  taps->filter = -1;  // Holds nothing, should memory run out below.
  const double scale = length / num_out;
  const double stretch = std::max(scale, 1.0);
  const double support = (filter == 1 ? 0.5 : 1.0) * stretch;
  taps->first.resize(num_out);
  taps->count.resize(num_out);
  int32_t longest = 0;
  for (int32_t i = 0; i < num_out; ++i) {
    const double center = begin + (i + 0.5) * scale;
    const int32_t first = std::max(0, static_cast<int32_t>(center - support + 0.5));
    const int32_t end = std::min(num_in, static_cast<int32_t>(center + support + 0.5));
    taps->first[i] = first;
    taps->count[i] = end - first;
    longest = std::max(longest, end - first);
  }
  const int32_t num_taps = (longest + 3) / 4 * 4;
  taps->weights.assign(static_cast<size_t>(num_out) * num_taps, 0);
  taps->parts.assign(static_cast<size_t>(num_out) * num_taps * 2, 0);
  std::vector<double> exact(longest);
  for (int32_t i = 0; i < num_out; ++i) {
    const double center = begin + (i + 0.5) * scale;
    double sum = 0;
    for (int32_t k = 0; k < taps->count[i]; ++k) {
      exact[k] = weigh(filter, (k + taps->first[i] - center + 0.5) * (1.0 / stretch));
      sum += exact[k];
    }
    int32_t* weights = &taps->weights[static_cast<size_t>(i) * num_taps];
    int16_t* parts = &taps->parts[static_cast<size_t>(i) * num_taps * 2];
    for (int32_t k = 0; k < taps->count[i]; ++k) {
      const double share = sum != 0 ? exact[k] / sum : exact[k];
      weights[k] = static_cast<int32_t>(0.5 + share * (1 << kPrecision));
      parts[k / 4 * 8 + k % 4] = static_cast<int16_t>(weights[k] & kLowMask);
      parts[k / 4 * 8 + 4 + k % 4] = static_cast<int16_t>(weights[k] >> kLowBits);
    }
  }
  taps->num_in = num_in;
  taps->begin = begin;
  taps->length = length;
  taps->num_out = num_out;
  taps->num_taps = num_taps;
  taps->filter = filter;
}

uint8_t round_sum(int32_t sum) {
  return static_cast<uint8_t>(std::min(255, std::max(0, sum >> kPrecision)));
}

// Resamples the columns of every row; `stride`: bytes from one row of `out` to the next.
void columns_plain(const Pixels& in, const Taps& taps, uint8_t* out, ptrdiff_t stride) {
  for (int32_t y = 0; y < in.height; ++y) {
    const uint8_t* row = in.data + y * in.stride;
    for (int32_t i = 0; i < taps.num_out; ++i) {
      const int32_t* weights = &taps.weights[static_cast<size_t>(i) * taps.num_taps];
      const uint8_t* pixel = row + static_cast<ptrdiff_t>(taps.first[i]) * 3;
      int32_t sums[3] = {kHalf, kHalf, kHalf};
      for (int32_t k = 0; k < taps.count[i]; ++k, pixel += 3) {
        for (int c = 0; c < 3; ++c) {
          sums[c] += pixel[c] * weights[k];
        }
      }
      for (int c = 0; c < 3; ++c) {
        out[y * stride + i * 3 + c] = round_sum(sums[c]);
      }
    }
  }
}

// Resamples rows: each output row is a weighted sum of input rows of `length` bytes.
void rows_plain(const uint8_t* in, ptrdiff_t stride, ptrdiff_t length, const Taps& taps,
                uint8_t* out, ptrdiff_t out_stride) {
  for (int32_t i = 0; i < taps.num_out; ++i, out += out_stride) {
    const int32_t* weights = &taps.weights[static_cast<size_t>(i) * taps.num_taps];
    const uint8_t* first = in + taps.first[i] * stride;
    for (ptrdiff_t x = 0; x < length; ++x) {
      int32_t sum = kHalf;
      for (int32_t k = 0; k < taps.count[i]; ++k) {
        sum += first[k * stride + x] * weights[k];
      }
      out[x] = round_sum(sum);
    }
  }
}

#ifdef FASTSSL_AVX2

#define FASTSSL_TARGET __attribute__((target("avx2")))

// low + high * 2^15, rounded. The parts may wrap, their sum cannot.
FASTSSL_TARGET inline __m256i join(__m256i low, __m256i high) {
  return _mm256_srai_epi32(_mm256_add_epi32(low, _mm256_slli_epi32(high, kLowBits)), kPrecision);
}

FASTSSL_TARGET inline __m256i broadcast_pair(const int16_t* pair) {
  int32_t both;
  std::memcpy(&both, pair, sizeof(both));
  return _mm256_set1_epi32(both);
}

// One output pixel of two rows, one in each half of a register, as 32-bit (r g b -). A half holds
// the four pixels of four taps, which a shuffle makes pairs (r0 r1 g0 g1 b0 b1 - -) of 16 bits.
FASTSSL_TARGET inline __m256i sum_columns_avx2(const uint8_t* a, const uint8_t* b,
                                               const int16_t* parts, int32_t num_groups) {
  const __m256i pick_01 = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  const __m256i pick_23 = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
  __m256i low = _mm256_set1_epi32(kHalf);
  __m256i high = _mm256_setzero_si256();
  for (int32_t group = 0; group < num_groups; ++group, parts += 8, a += 12, b += 12) {
    const __m256i bytes =
        _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i*)a)),
                                _mm_loadu_si128((const __m128i*)b), 1);
    const __m256i first = _mm256_shuffle_epi8(bytes, pick_01);
    const __m256i last = _mm256_shuffle_epi8(bytes, pick_23);
    low = _mm256_add_epi32(low, _mm256_madd_epi16(first, broadcast_pair(parts)));
    low = _mm256_add_epi32(low, _mm256_madd_epi16(last, broadcast_pair(parts + 2)));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(first, broadcast_pair(parts + 4)));
    high = _mm256_add_epi32(high, _mm256_madd_epi16(last, broadcast_pair(parts + 6)));
  }
  return join(low, high);
}

// kGroups: groups of four taps, if it is known; else 0.
template <int32_t kGroups>
FASTSSL_TARGET void columns_by_groups(const Pixels& in, const Taps& taps, uint8_t* out,
                                      ptrdiff_t stride) {
  const int32_t num_groups = kGroups > 0 ? kGroups : taps.num_taps / 4;
  // Two pixels of (r g b -) each, without the gaps.
  const __m256i close = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 2, 4, 5, 6, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1));
  for (int32_t y = 0; y < in.height; y += 2) {
    const int32_t second = std::min(y + 1, in.height - 1);
    const uint8_t* row_a = in.data + y * in.stride;
    const uint8_t* row_b = in.data + second * in.stride;
    uint8_t* out_a = out + y * stride;
    uint8_t* out_b = out + second * stride;
    const int16_t* parts = taps.parts.data();
    for (int32_t i = 0; i < taps.num_out; i += 2, parts += 16 * num_groups) {
      const bool is_pair = i + 1 < taps.num_out;
      const ptrdiff_t left = static_cast<ptrdiff_t>(taps.first[i]) * 3;
      const ptrdiff_t right = is_pair ? static_cast<ptrdiff_t>(taps.first[i + 1]) * 3 : left;
      const __m256i one = sum_columns_avx2(row_a + left, row_b + left, parts, num_groups);
      const __m256i two = sum_columns_avx2(row_a + right, row_b + right,
                                           is_pair ? parts + 8 * num_groups : parts, num_groups);
      const __m256i words = _mm256_packs_epi32(one, two);
      const __m256i bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(words, words), close);
      const auto pixels_a = _mm_cvtsi128_si64(_mm256_castsi256_si128(bytes));
      const auto pixels_b = _mm_cvtsi128_si64(_mm256_extracti128_si256(bytes, 1));
      if (i + 2 < taps.num_out) {
        // The last two bytes fall on the next pixel, which is written later.
        std::memcpy(out_a + i * 3, &pixels_a, 8);
        std::memcpy(out_b + i * 3, &pixels_b, 8);
      } else {
        std::memcpy(out_a + i * 3, &pixels_a, is_pair ? 6 : 3);
        std::memcpy(out_b + i * 3, &pixels_b, is_pair ? 6 : 3);
      }
    }
  }
}

FASTSSL_TARGET void columns_avx2(const Pixels& in, const Taps& taps, uint8_t* out,
                                 ptrdiff_t stride) {
  switch (taps.num_taps / 4) {
    case 1:
      return columns_by_groups<1>(in, taps, out, stride);
    case 2:
      return columns_by_groups<2>(in, taps, out, stride);
    default:
      return columns_by_groups<0>(in, taps, out, stride);
  }
}

// Sixteen columns of one output row.
FASTSSL_TARGET inline __m128i sum_rows_avx2(const uint8_t* in, ptrdiff_t stride, int32_t count,
                                            const int16_t* parts) {
  __m256i low_a = _mm256_set1_epi32(kHalf);
  __m256i low_b = low_a;
  __m256i high_a = _mm256_setzero_si256();
  __m256i high_b = high_a;
  for (int32_t k = 0; k < count; k += 2) {
    const __m128i one = _mm_loadu_si128((const __m128i*)(in + k * stride));
    // An odd count leaves the last tap alone: its partner's weight is 0, its row may not exist.
    const __m128i two = _mm_loadu_si128((const __m128i*)(in + std::min(k + 1, count - 1) * stride));
    const __m256i pairs_a = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(one, two));
    const __m256i pairs_b = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(one, two));
    const int16_t* pair = parts + k / 4 * 8 + k % 4;
    const __m256i low = broadcast_pair(pair);
    const __m256i high = broadcast_pair(pair + 4);
    low_a = _mm256_add_epi32(low_a, _mm256_madd_epi16(pairs_a, low));
    low_b = _mm256_add_epi32(low_b, _mm256_madd_epi16(pairs_b, low));
    high_a = _mm256_add_epi32(high_a, _mm256_madd_epi16(pairs_a, high));
    high_b = _mm256_add_epi32(high_b, _mm256_madd_epi16(pairs_b, high));
  }
  const __m256i words = _mm256_packs_epi32(join(low_a, high_a), join(low_b, high_b));
  const __m256i ordered = _mm256_permute4x64_epi64(words, 0xD8);
  return _mm_packus_epi16(_mm256_castsi256_si128(ordered), _mm256_extracti128_si256(ordered, 1));
}

FASTSSL_TARGET void rows_avx2(const uint8_t* in, ptrdiff_t stride, ptrdiff_t length,
                              const Taps& taps, uint8_t* out, ptrdiff_t out_stride) {
  const ptrdiff_t whole = length / 16 * 16;
  for (int32_t i = 0; i < taps.num_out; ++i, out += out_stride) {
    const int16_t* parts = &taps.parts[static_cast<size_t>(i) * taps.num_taps * 2];
    const uint8_t* first = in + taps.first[i] * stride;
    const int32_t count = taps.count[i];
    for (ptrdiff_t x = 0; x < whole; x += 16) {
      _mm_storeu_si128((__m128i*)(out + x), sum_rows_avx2(first + x, stride, count, parts));
    }
    if (whole < length) {
      alignas(16) uint8_t tail[16];
      _mm_store_si128((__m128i*)tail, sum_rows_avx2(first + whole, stride, count, parts));
      std::memcpy(out + whole, tail, length - whole);
    }
  }
}

bool has_avx2() { return __builtin_cpu_supports("avx2"); }

#endif

void resample_columns(const Pixels& in, const Taps& taps, bool is_vectorised, uint8_t* out,
                      ptrdiff_t stride) {
#ifdef FASTSSL_AVX2
  if (is_vectorised && has_avx2()) {
    columns_avx2(in, taps, out, stride);
    return;
  }
#else
  (void)is_vectorised;
#endif
  columns_plain(in, taps, out, stride);
}

void resample_rows(const Pixels& in, const Taps& taps, bool is_vectorised, uint8_t* out,
                   ptrdiff_t stride) {
  const ptrdiff_t length = static_cast<ptrdiff_t>(in.width) * 3;
#ifdef FASTSSL_AVX2
  if (is_vectorised && has_avx2()) {
    rows_avx2(in.data, in.stride, length, taps, out, stride);
    return;
  }
#else
  (void)is_vectorised;
#endif
  rows_plain(in.data, in.stride, length, taps, out, stride);
}

Pixels dense(const uint8_t* data, int32_t width, int32_t height) {
  return {data, static_cast<ptrdiff_t>(width) * 3, width, height};
}

void grow(std::vector<uint8_t>* scratch, int64_t num_pixels) {
  const size_t needed = static_cast<size_t>(num_pixels) * 3 + kReadPast;
  if (scratch->size() < needed) {
    scratch->resize(needed);
  }
}

// Whether Pillow resamples the rows before the columns: from its version 13 on where the height
// loses more than twice what the width loses. Each order rounds in its own way, by 1 at most.
bool takes_rows_first(const Pixels& in, int32_t out_width, int32_t out_height) {
  return out_height < in.height && in.height - out_height > 2 * (in.width - out_width);
}

// Makes black what a view does not fill of its square: memory is used again and again.
void blacken(const ViewBox& view, int32_t side, uint8_t* out) {
  const size_t stride = size_t{3} * side;
  const size_t filled = size_t{3} * view.out_width;
  for (int32_t y = 0; filled < stride && y < view.out_height; ++y) {
    std::memset(out + y * stride + filled, 0, stride - filled);
  }
  std::memset(out + view.out_height * stride, 0, (side - view.out_height) * stride);
}

bool is_size(int32_t width, int32_t height) {
  return width >= 1 && height >= 1 && width <= kMaxSide && height <= kMaxSide &&
         static_cast<int64_t>(width) * height <= kMaxPixels;
}

}  // namespace

bool is_inside(const ViewBox& view, int32_t width, int32_t height, int32_t side) {
  const bool has_middle = view.mid_width != 0 || view.mid_height != 0;
  return view.left >= 0 && view.top >= 0 && view.width >= 1 && view.height >= 1 &&
         view.left <= width - view.width && view.top <= height - view.height &&
         (view.filter == 0 || view.filter == 1) && view.out_width >= 1 && view.out_width <= side &&
         view.out_height >= 1 && view.out_height <= side &&
         (!has_middle || (view.mid_width >= 1 && view.mid_height >= 1));
}

Status Resampler::resize(const Pixels& in, int32_t filter, int32_t out_width, int32_t out_height,
                         uint8_t* out, ptrdiff_t stride) {
  const Window whole = {0, 0, static_cast<double>(in.width), static_cast<double>(in.height)};
  return resize(in, whole, filter, out_width, out_height, out, stride);
}

Status Resampler::resize(const Pixels& in, const Window& window, int32_t filter, int32_t out_width,
                         int32_t out_height, uint8_t* out, ptrdiff_t stride) try {
  if (!is_size(in.width, in.height) || !is_size(out_width, out_height)) {
    return Status::too_large;
  }
  const bool keeps_columns = out_width == in.width && window.left == 0 && window.width == in.width;
  const bool keeps_rows = out_height == in.height && window.top == 0 && window.height == in.height;
  if (!keeps_columns) {
    plan_taps(in.width, window.left, window.width, out_width, filter, &columns_);
  }
  if (!keeps_rows) {
    plan_taps(in.height, window.top, window.height, out_height, filter, &rows_);
  }
  if (keeps_columns && keeps_rows) {
    for (int32_t y = 0; y < out_height; ++y) {
      std::memcpy(out + y * stride, in.data + y * in.stride, size_t{3} * out_width);
    }
  } else if (keeps_rows) {
    resample_columns(in, columns_, is_vectorised_, out, stride);
  } else if (keeps_columns) {
    resample_rows(in, rows_, is_vectorised_, out, stride);
  } else if (takes_rows_first(in, out_width, out_height)) {
    grow(&between_, int64_t{in.width} * out_height);
    const Pixels between = dense(between_.data(), in.width, out_height);
    resample_rows(in, rows_, is_vectorised_, between_.data(), between.stride);
    resample_columns(between, columns_, is_vectorised_, out, stride);
  } else {
    if (!is_size(out_width, in.height)) {
      return Status::too_large;
    }
    grow(&between_, int64_t{out_width} * in.height);
    const Pixels between = dense(between_.data(), out_width, in.height);
    resample_columns(in, columns_, is_vectorised_, between_.data(), between.stride);
    resample_rows(between, rows_, is_vectorised_, out, stride);
  }
  return Status::ok;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

Status Resampler::resize_view(const Pixels& in, const Window& window, const ViewBox& view,
                              int32_t side, uint8_t* out) try {
  const ptrdiff_t stride = ptrdiff_t{3} * side;
  Status status = Status::ok;
  if (view.mid_width == 0) {
    status = resize(in, window, view.filter, view.out_width, view.out_height, out, stride);
  } else if (!is_size(view.mid_width, view.mid_height)) {
    status = Status::too_large;
  } else {
    grow(&middle_, int64_t{view.mid_width} * view.mid_height);
    const Pixels middle = dense(middle_.data(), view.mid_width, view.mid_height);
    status = resize(in, window, view.filter, view.mid_width, view.mid_height, middle_.data(),
                    middle.stride);
    if (status == Status::ok) {
      status = resize(middle, view.filter, view.out_width, view.out_height, out, stride);
    }
  }
  if (status == Status::ok) {
    blacken(view, side, out);
  }
  return status;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

Status Resampler::cut_view(const Pixels& picture, const ViewBox& view, int32_t side, uint8_t* out) {
  if (!is_inside(view, picture.width, picture.height, side)) {
    return Status::corrupt;
  }
  const uint8_t* corner =
      picture.data + view.top * picture.stride + static_cast<ptrdiff_t>(view.left) * 3;
  const Pixels crop = {corner, picture.stride, view.width, view.height};
  const Window whole = {0, 0, static_cast<double>(view.width), static_cast<double>(view.height)};
  return resize_view(crop, whole, view, side, out);
}

}  // namespace fastssl::jpeg
