// Whole views: mirror, grey, normalise, cast and lay out in one pass.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "cpu/pixels.h"

namespace fastssl {
namespace {

template <typename Out>
void normalize_rows(const Images& images, const bool* flip, const bool* grey,
                    const Tables<Out>& tables, bool channels_last, Out* out) {
  const int64_t pixels = images.height * images.width;
  const int64_t grain = std::max<int64_t>(1, 32768 / (3 * images.width));
  at::parallel_for(0, images.num * images.height, grain, [&](int64_t begin, int64_t end) {
    for (int64_t index = begin; index < end; ++index) {
      const int64_t image = index / images.height;
      const int64_t y = index % images.height;
      const Row row = cut_row(images, image, y, 0, images.width, flip && flip[image]);
      Out* first = out + image * 3 * pixels;
      const Target<Out> target = channels_last ? Target<Out>{first + 3 * y * images.width, 3, 1}
                                               : Target<Out>{first + y * images.width, 1, pixels};
      map_row(row, grey && grey[image], tables[0], tables[1], tables[2], target);
    }
  });
}

at::Tensor normalize(const at::Tensor& images_in, const std::optional<at::Tensor>& flip_in,
                     const std::optional<at::Tensor>& grey_in, at::ArrayRef<double> mean,
                     at::ArrayRef<double> std, at::ScalarType dtype, bool channels_last) {
  check_images(images_in);
  check_mean_and_std(mean, std);
  const at::Tensor images = with_dense_rows(images_in);
  const int64_t num = images.size(0), height = images.size(1), width = images.size(2);
  const at::Tensor flip = dense_option(flip_in, "flip", at::kBool, {num}, images.device());
  const at::Tensor grey = dense_option(grey_in, "grey", at::kBool, {num}, images.device());
  at::Tensor out =
      channels_last
          ? at::empty({num, height, width, 3}, images.options().dtype(dtype)).permute({0, 3, 1, 2})
          : at::empty({num, 3, height, width}, images.options().dtype(dtype));
  const auto run = [&](auto zero) {
    using Out = decltype(zero);
    if (out.numel() > 0) {
      normalize_rows<Out>(view_images(images), data_or_null<bool>(flip), data_or_null<bool>(grey),
                          normalize_tables<Out>(mean, std), channels_last,
                          out.mutable_data_ptr<Out>());
    }
  };
  switch (dtype) {
    case at::kFloat:
      run(float{});
      break;
    case at::kHalf:
      run(at::Half{});
      break;
    case at::kBFloat16:
      run(at::BFloat16{});
      break;
    default:
      TORCH_CHECK_VALUE(false, "dtype must be float32, float16 or bfloat16, got ", dtype);
  }
  return out;
}

}  // namespace
}  // namespace fastssl

TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("normalize", &fastssl::normalize); }
