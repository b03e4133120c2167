// Whole views: mirror, grey, normalise, cast and lay out in one pass.
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>

#include "cpu/dispatch.h"
#include "cpu/pages.h"
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
  const ViewArguments arguments(images_in, flip_in, grey_in, mean, std, dtype);
  at::Tensor out = arguments.empty_views(dtype, channels_last);
  if (out.numel() == 0) {
    return out;
  }
  advise_huge_pages(out);
  dispatch_floating(dtype, [&](auto zero) {
    using Out = decltype(zero);
    normalize_rows<Out>(arguments.view, data_or_null<bool>(arguments.flip),
                        data_or_null<bool>(arguments.grey), normalize_tables<Out>(mean, std),
                        channels_last, out.mutable_data_ptr<Out>());
  });
  return out;
}

}  // namespace
}  // namespace fastssl

TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("normalize", &fastssl::normalize); }
