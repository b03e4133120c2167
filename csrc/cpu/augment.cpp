// Views in normalised Lab or RGB whose colours, place and extent change: every image is converted
// once, into planes that stay in the second cache while its copies are made of them.
#include "augment.h"

#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "cpu/dispatch.h"
#include "cpu/lab.h"
#include "cpu/pages.h"
#include "cpu/pixels.h"
#include "cpu/rows.h"

// Last, as it says itself.
#include "cpu/lanes.h"

namespace fastssl {
namespace {

FASTSSL_INLINE void read_bytes_body(const uint8_t* __restrict row, int64_t num,
                                    float* __restrict red, float* __restrict green,
                                    float* __restrict blue) {
  for (int64_t x = 0; x < num; ++x) {
    red[x] = static_cast<float>(row[3 * x]);
    green[x] = static_cast<float>(row[3 * x + 1]);
    blue[x] = static_cast<float>(row[3 * x + 2]);
  }
}

FASTSSL_KERNEL(read_bytes, (const uint8_t* row, int64_t num, float* red, float* green, float* blue),
               (row, num, red, green, blue))

// What is done to the colours of one copy: (x - centre) * factor + shift.
struct Tint {
  float centre[3];
  float factor[3];
  float shift[3];
  bool is_grey;
};

template <bool kMirrored>
FASTSSL_INLINE void tint_pixels(const float* __restrict from, int64_t from_plane, int64_t num,
                                const Tint& tint, float* __restrict red, float* __restrict green,
                                float* __restrict blue) {
  const float* first = from;
  const float* second = from + from_plane;
  const float* third = from + 2 * from_plane;
  for (int64_t x = 0; x < num; ++x) {
    const int64_t place = kMirrored ? num - 1 - x : x;
    red[x] = (first[place] - tint.centre[0]) * tint.factor[0] + tint.shift[0];
    green[x] = (second[place] - tint.centre[1]) * tint.factor[1] + tint.shift[1];
    blue[x] = (third[place] - tint.centre[2]) * tint.factor[2] + tint.shift[2];
  }
  if (tint.is_grey) {
    for (int64_t x = 0; x < num; ++x) {
      const float mean = (red[x] + green[x] + blue[x]) * kThird;
      red[x] = green[x] = blue[x] = mean;
    }
  }
}

FASTSSL_INLINE void tint_row_body(const float* from, int64_t from_plane, int64_t num, bool mirrored,
                                  const Tint& tint, float* red, float* green, float* blue) {
  if (mirrored) {
    tint_pixels<true>(from, from_plane, num, tint, red, green, blue);
  } else {
    tint_pixels<false>(from, from_plane, num, tint, red, green, blue);
  }
}

FASTSSL_KERNEL(tint_row,
               (const float* from, int64_t from_plane, int64_t num, bool mirrored, const Tint& tint,
                float* red, float* green, float* blue),
               (from, from_plane, num, mirrored, tint, red, green, blue))

Tint make_tint(const Augmentation& augmentation, int64_t copy) {
  Tint tint = {};
  for (int channel = 0; channel < 3; ++channel) {
    tint.centre[channel] = augmentation.centre[channel];
    tint.factor[channel] = augmentation.scale[channel];
    if (augmentation.gain != nullptr) {
      tint.factor[channel] *= augmentation.gain[3 * copy + channel];
      tint.shift[channel] = augmentation.shift[3 * copy + channel];
    }
  }
  tint.is_grey = augmentation.grey != nullptr && augmentation.grey[copy];
  return tint;
}

// Numbers begin .. end-1, cut to 0 .. size.
struct Span {
  Span(int64_t from, int64_t to, int64_t size)
      : begin(std::clamp<int64_t>(from, 0, size)), end(std::clamp<int64_t>(to, 0, size)) {}

  bool has(int64_t place) const { return place >= begin && place < end; }

  int64_t begin, end;
};

// Converts one image after the other and makes its copies.
template <typename Out>
class Augmenter {
 public:
  Augmenter(const Images& images, const Augmentation& augmentation, bool channels_last, Out* out)
      : images_(images),
        augmentation_(augmentation),
        channels_last_(channels_last),
        out_(out),
        linear_(augmentation.is_lab ? images.width : 0),
        planes_(3 * images.height * images.width),
        rows_(3 * images.width) {}

  void run(int64_t image) {
    convert(image);
    for (int64_t copy = 0; copy < augmentation_.copies; ++copy) {
      write(image * augmentation_.copies + copy);
    }
  }

 private:
  void convert(int64_t image) {
    const int64_t width = images_.width, plane = images_.height * width;
    for (int64_t y = 0; y < images_.height; ++y) {
      const Row row = cut_row(images_, image, y, 0, width, false);
      float* first = planes_.data() + y * width;
      if (augmentation_.is_lab) {
        linear_.read(row, 1);
        convert_row(linear_.red.data(), linear_.green.data(), linear_.blue.data(), width, false,
                    first, first + plane, first + 2 * plane);
      } else {
        read_bytes(row.first, width, first, first + plane, first + 2 * plane);
      }
    }
  }

  // `copy` counts those of all images.
  void write(int64_t copy) {
    const int64_t height = images_.height, width = images_.width;
    const int32_t* offset = augmentation_.offset ? augmentation_.offset + 2 * copy : nullptr;
    const int32_t* corner = augmentation_.corner ? augmentation_.corner + 2 * copy : nullptr;
    const int64_t down = offset ? offset[0] : 0, right = offset ? offset[1] : 0;
    const int64_t top = corner ? corner[0] : 0, left = corner ? corner[1] : 0;
    // Where in the result something of the image is, and what of that is cut out.
    const Span rows(-down, height - down, height), columns(-right, width - right, width);
    const Span cut_rows(top, top + augmentation_.cutout, height);
    const Span cut_columns(left, left + augmentation_.cutout, width);
    const bool mirrored = augmentation_.flip && augmentation_.flip[copy];
    const Tint tint = make_tint(augmentation_, copy);
    const int64_t num = std::max<int64_t>(columns.end - columns.begin, 0);
    const int64_t first = mirrored ? width - (columns.begin + right) - num : columns.begin + right;
    for (int64_t y = 0; y < height; ++y) {
      if (!rows.has(y) || num == 0) {
        std::fill(rows_.begin(), rows_.end(), 0.0f);
      } else {
        float* place = rows_.data() + columns.begin;
        tint_row(planes_.data() + (y + down) * width + first, height * width, num, mirrored, tint,
                 place, place + width, place + 2 * width);
        blank(0, columns.begin);
        blank(columns.end, width);
        if (cut_rows.has(y)) {
          blank(cut_columns.begin, cut_columns.end);
        }
      }
      write_row(rows_.data(), height, width, y, channels_last_, out_ + 3 * copy * height * width);
    }
  }

  void blank(int64_t begin, int64_t end) {
    for (int64_t channel = 0; begin < end && channel < 3; ++channel) {
      std::fill_n(rows_.begin() + channel * images_.width + begin, end - begin, 0.0f);
    }
  }

  const Images& images_;
  const Augmentation& augmentation_;
  bool channels_last_;
  Out* out_;
  LinearRow linear_;
  std::vector<float> planes_, rows_;
};

at::Tensor augment_views(const at::Tensor& images, const std::optional<at::Tensor>& gain,
                         const std::optional<at::Tensor>& shift,
                         const std::optional<at::Tensor>& grey,
                         const std::optional<at::Tensor>& flip,
                         const std::optional<at::Tensor>& offset,
                         const std::optional<at::Tensor>& corner, int64_t copies, int64_t cutout,
                         bool is_lab, at::ArrayRef<double> mean, at::ArrayRef<double> std,
                         at::ScalarType dtype, bool channels_last) {
  const AugmentArguments arguments(images, gain, shift, grey, flip, offset, corner, copies, cutout,
                                   is_lab, mean, std, dtype);
  at::Tensor out = arguments.empty_views(dtype, channels_last);
  if (out.numel() == 0) {
    return out;
  }
  advise_huge_pages(out);
  dispatch_floating(dtype, [&](auto zero) {
    using Out = decltype(zero);
    Out* data = out.mutable_data_ptr<Out>();
    at::parallel_for(0, arguments.view.num, 1, [&](int64_t begin, int64_t end) {
      Augmenter<Out> augmenter(arguments.view, arguments.augmentation, channels_last, data);
      for (int64_t image = begin; image < end; ++image) {
        augmenter.run(image);
      }
    });
  });
  return out;
}

}  // namespace
}  // namespace fastssl

TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("augment_views", &fastssl::augment_views); }
