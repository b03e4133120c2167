#include "jpeg/decode.h"

#include <algorithm>
#include <new>
#include <vector>

#include "jpeg/baseline.h"
#include "jpeg/geometry.h"
#include "jpeg/parse.h"
#include "jpeg/turbo.h"

namespace fastssl::jpeg {
namespace {

// As many pixels as the reference decoder takes.
constexpr int64_t kMaxPixels = int64_t{1} << 29;
// Scratch that a thread may keep from picture to picture.
constexpr size_t kKeptBytes = size_t{48} << 20;

void trim_scratch(std::vector<uint8_t>* scratch) {
  if (scratch->capacity() > kKeptBytes) {
    *scratch = std::vector<uint8_t>();
  }
}

}  // namespace

struct Decoder::Impl {
  BaselineDecoder baseline;
  TurboDecoder turbo;
  Resampler resampler;
  std::vector<Rect> boxes;      // Of the views, in the stored picture.
  std::vector<uint8_t> rgb;     // What was decoded.
  std::vector<uint8_t> turned;  // One crop, upright.

  void trim();
  Status locate(const Layout& layout, const ViewBox* views, int32_t num_views);
  Status cut(const Pixels& crop, int32_t orientation, const ViewBox& view, int32_t side,
             uint8_t* out);
  Status decode_as_baseline(const uint8_t* data, size_t size, const Layout& layout,
                            const ViewBox* views, int32_t num_views, int32_t side, uint8_t* out,
                            Counters* counters);
  Status decode_by_turbo(const uint8_t* data, size_t size, const Layout& layout,
                         const ViewBox* views, int32_t num_views, int32_t side, uint8_t* out,
                         Counters* counters);
};

// Gives back what only large pictures need: there is one decoder a thread.
void Decoder::Impl::trim() {
  baseline.trim();
  trim_scratch(&rgb);
  trim_scratch(&turned);
}

// Finds the views' boxes in the stored picture.
Status Decoder::Impl::locate(const Layout& layout, const ViewBox* views, int32_t num_views) {
  const bool swaps = is_transposed(layout.orientation);
  boxes.resize(num_views);
  for (int32_t v = 0; v < num_views; ++v) {
    if (!is_inside(views[v], swaps ? layout.height : layout.width,
                   swaps ? layout.width : layout.height)) {
      return Status::corrupt;
    }
    boxes[v] = to_stored(views[v], layout.width, layout.height, layout.orientation);
  }
  return Status::ok;
}

// Makes a view of its crop, which lies as it is stored.
Status Decoder::Impl::cut(const Pixels& crop, int32_t orientation, const ViewBox& view,
                          int32_t side, uint8_t* out) {
  ViewBox whole = view;
  whole.left = 0;
  whole.top = 0;
  if (orientation == 1) {
    return resampler.cut_view(crop, whole, side, out);
  }
  const size_t needed = size_t{3} * crop.width * crop.height + kReadPast;
  if (turned.size() < needed) {
    turned.resize(needed);
  }
  turn_upright(crop, orientation, turned.data());
  const Pixels upright = {turned.data(), ptrdiff_t{3} * view.width, view.width, view.height};
  return resampler.cut_view(upright, whole, side, out);
}

// Decodes the restart segments that the views need; without restarts there is one.
Status Decoder::Impl::decode_as_baseline(const uint8_t* data, size_t size, const Layout& layout,
                                         const ViewBox* views, int32_t num_views, int32_t side,
                                         uint8_t* out, Counters* counters) {
  uint64_t num_mcus = 0, num_bytes = 0;
  Status status = baseline.decode(data, size, layout, boxes, &num_mcus, &num_bytes);
  counters->entropy_decoded_mcus += num_mcus;
  counters->bytes_copied += num_bytes;
  for (int32_t v = 0; v < num_views && status == Status::ok; ++v) {
    const Rect& box = boxes[v];
    const size_t needed = size_t{3} * box.width() * box.height() + kReadPast;
    if (rgb.size() < needed) {
      rgb.resize(needed);
    }
    baseline.convert(box, rgb.data());
    const Pixels crop = {rgb.data(), ptrdiff_t{3} * box.width(), box.width(), box.height()};
    status = cut(crop, layout.orientation, views[v], side, out + size_t{3} * side * side * v);
  }
  return status;
}

Status Decoder::Impl::decode_by_turbo(const uint8_t* data, size_t size, const Layout& layout,
                                      const ViewBox* views, int32_t num_views, int32_t side,
                                      uint8_t* out, Counters* counters) {
  Rect all = boxes[0];
  for (const Rect& box : boxes) {
    all = unite(all, box);
  }
  Pixels picture;
  int32_t rows_read = 0;
  Status status = turbo.decode(data, size, all, &rgb, &picture, &rows_read);
  for (int32_t v = 0; v < num_views && status == Status::ok; ++v) {
    const Rect& box = boxes[v];
    const uint8_t* corner =
        picture.data + (box.top - all.top) * picture.stride + ptrdiff_t{3} * (box.left - all.left);
    const Pixels crop = {corner, picture.stride, box.width(), box.height()};
    status = cut(crop, layout.orientation, views[v], side, out + size_t{3} * side * side * v);
  }
  const int32_t num_mcu_rows = (rows_read + layout.mcu_height - 1) / layout.mcu_height;
  counters->entropy_decoded_mcus +=
      uint64_t{1} * layout.mcus_per_row *
      (layout.is_single_scan ? std::min(num_mcu_rows, layout.mcu_rows) : layout.mcu_rows);
  return status;
}

Decoder::Decoder() : impl_(new Impl) {}

Decoder::~Decoder() = default;

Status Decoder::decode_views(const uint8_t* data, size_t size, const ViewBox* views,
                             int32_t num_views, int32_t side, uint8_t* out,
                             Counters* counters) try {
  Layout layout;
  Status status = parse_header(data, size, &layout);
  if (status != Status::ok) {
    return status;
  }
  if (static_cast<int64_t>(layout.width) * layout.height > kMaxPixels) {
    return Status::too_large;
  }
  if (layout.precision != 8 || (layout.num_components != 1 && layout.num_components != 3)) {
    return Status::unsupported;
  }
  status = impl_->locate(layout, views, num_views);
  if (status != Status::ok || num_views == 0) {
    return status;
  }
  Counters ignored;
  Counters* counted = counters != nullptr ? counters : &ignored;
  counted->total_mcus += count_mcus(layout);
  status = Status::unsupported;
  if (BaselineDecoder::is_supported(layout)) {
    status = impl_->decode_as_baseline(data, size, layout, views, num_views, side, out, counted);
  }
  if (status == Status::unsupported) {
    status = impl_->decode_by_turbo(data, size, layout, views, num_views, side, out, counted);
  }
  impl_->trim();
  return status;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

}  // namespace fastssl::jpeg
