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
constexpr int64_t kMaxPixels = int64_t{1} << 27;
// Scratch that a thread may keep from picture to picture.
constexpr size_t kKeptBytes = size_t{48} << 20;

void trim_scratch(std::vector<uint8_t>* scratch) {
  if (scratch->capacity() > kKeptBytes) {
    *scratch = std::vector<uint8_t>();
  }
}

bool has_size(const Layout& layout, int32_t width, int32_t height) {
  const bool swaps = is_transposed(layout.orientation);
  return width == (swaps ? layout.height : layout.width) &&
         height == (swaps ? layout.width : layout.height);
}

// The largest factor by which the picture may be reduced so that no view must be enlarged.
int32_t find_factor(const ViewBox* views, int32_t num_views) {
  auto is_enough = [=](int32_t factor) {
    return std::all_of(views, views + num_views, [=](const ViewBox& view) {
      return view.width >= int64_t{factor} * std::max(view.out_width, view.mid_width) &&
             view.height >= int64_t{factor} * std::max(view.out_height, view.mid_height);
    });
  };
  int32_t factor = 8;
  while (factor > 1 && !is_enough(factor)) {
    factor /= 2;
  }
  return factor;
}

}  // namespace

struct Decoder::Impl {
  // What a call is asked for.
  struct Task {
    const uint8_t* data;
    size_t size;
    Layout layout;
    const ViewBox* views;
    int32_t num_views;
    int32_t side;
    int32_t factor;
    uint8_t* out;
  };

  BaselineDecoder baseline;
  EntryPoints entries;
  TurboDecoder turbo;
  Resampler resampler;
  std::vector<Rect> boxes;      // Of the views, in the stored picture.
  std::vector<Rect> covers;     // The same in the reduced picture, as far as pixels are cut.
  std::vector<uint8_t> rgb;     // What was decoded.
  std::vector<uint8_t> turned;  // One crop, upright.

  void trim();
  Status locate(const Task& task);
  Status cut(const Task& task, const Pixels& crop, int32_t v);
  void read_entries(const Task& task, const EntryRecord& record, Counters* counters);
  Status decode_as_baseline(const Task& task, Counters* counters);
  Status decode_by_turbo(const Task& task, Counters* counters);
};

// Gives back what only large pictures need: there is one decoder a thread.
void Decoder::Impl::trim() {
  baseline.trim();
  trim_scratch(&rgb);
  trim_scratch(&turned);
}

// Finds the views' boxes in the stored picture.
Status Decoder::Impl::locate(const Task& task) {
  const Layout& layout = task.layout;
  const bool swaps = is_transposed(layout.orientation);
  boxes.resize(task.num_views);
  covers.resize(task.num_views);
  for (int32_t v = 0; v < task.num_views; ++v) {
    if (!is_inside(task.views[v], swaps ? layout.height : layout.width,
                   swaps ? layout.width : layout.height, task.side)) {
      return Status::corrupt;
    }
    boxes[v] = to_stored(task.views[v], layout.width, layout.height, layout.orientation);
    covers[v] = cover(boxes[v], task.factor);
  }
  return Status::ok;
}

// Makes a view of its crop, which lies as it is stored.
Status Decoder::Impl::cut(const Task& task, const Pixels& crop, int32_t v) {
  const int32_t orientation = task.layout.orientation;
  const Window window = find_window(boxes[v], task.factor, orientation);
  uint8_t* const out = task.out + size_t{3} * task.side * task.side * v;
  if (orientation == 1) {
    return resampler.resize_view(crop, window, task.views[v], task.side, out);
  }
  const size_t needed = size_t{3} * crop.width * crop.height + kReadPast;
  if (turned.size() < needed) {
    turned.resize(needed);
  }
  turn_upright(crop, orientation, turned.data());
  const bool swaps = is_transposed(orientation);
  const int32_t width = swaps ? crop.height : crop.width;
  const int32_t height = swaps ? crop.width : crop.height;
  const Pixels upright = {turned.data(), ptrdiff_t{3} * width, width, height};
  return resampler.resize_view(upright, window, task.views[v], task.side, out);
}

void Decoder::Impl::read_entries(const Task& task, const EntryRecord& record, Counters* counters) {
  entries.clear();
  if (record.size > 0 && entries.read(record, task.size, task.layout) != Status::ok) {
    ++counters->records_refused;
  }
}

// Decodes the restart segments that the views need; without restarts there is one.
Status Decoder::Impl::decode_as_baseline(const Task& task, Counters* counters) {
  uint64_t num_mcus = 0, num_bytes = 0;
  Status status = baseline.decode(task.data, task.size, task.layout, entries, covers, task.factor,
                                  &num_mcus, &num_bytes);
  counters->entropy_decoded_mcus += num_mcus;
  counters->bytes_copied += num_bytes;
  for (int32_t v = 0; v < task.num_views && status == Status::ok; ++v) {
    const Rect& box = covers[v];
    const size_t needed = size_t{3} * box.width() * box.height() + kReadPast;
    if (rgb.size() < needed) {
      rgb.resize(needed);
    }
    baseline.convert(box, rgb.data());
    const Pixels crop = {rgb.data(), ptrdiff_t{3} * box.width(), box.width(), box.height()};
    status = cut(task, crop, v);
  }
  return status;
}

Status Decoder::Impl::decode_by_turbo(const Task& task, Counters* counters) {
  Rect all = covers[0];
  for (const Rect& box : covers) {
    all = unite(all, box);
  }
  Pixels picture;
  int32_t rows_read = 0;
  Status status = turbo.decode(task.data, task.size, all, task.factor, &rgb, &picture, &rows_read);
  for (int32_t v = 0; v < task.num_views && status == Status::ok; ++v) {
    const Rect& box = covers[v];
    const uint8_t* corner =
        picture.data + (box.top - all.top) * picture.stride + ptrdiff_t{3} * (box.left - all.left);
    const Pixels crop = {corner, picture.stride, box.width(), box.height()};
    status = cut(task, crop, v);
  }
  const Layout& layout = task.layout;
  const int32_t num_mcu_rows = (rows_read + layout.mcu_height - 1) / layout.mcu_height;
  counters->entropy_decoded_mcus +=
      uint64_t{1} * layout.mcus_per_row *
      (layout.is_single_scan ? std::min(num_mcu_rows, layout.mcu_rows) : layout.mcu_rows);
  return status;
}

Decoder::Decoder() : impl_(new Impl) {}

Decoder::~Decoder() = default;

Status Decoder::decode_views(const uint8_t* data, size_t size, const ViewBox* views,
                             int32_t num_views, int32_t side, Dct dct, uint8_t* out,
                             Counters* counters, int32_t* factor, int32_t width, int32_t height,
                             const EntryRecord& record) try {
  Impl::Task task = {data, size, {}, views, num_views, side, 1, out};
  const Layout& layout = task.layout;
  Status status = parse_header(data, size, &task.layout);
  if (status != Status::ok) {
    return status;
  }
  if (static_cast<int64_t>(layout.width) * layout.height > kMaxPixels) {
    return Status::too_large;
  }
  if (width != 0 && !has_size(layout, width, height)) {
    return Status::corrupt;
  }
  if (layout.precision != 8 || (layout.num_components != 1 && layout.num_components != 3)) {
    return Status::unsupported;
  }
  if (dct == Dct::scaled) {
    task.factor = find_factor(views, num_views);
  }
  if (factor != nullptr) {
    *factor = task.factor;
  }
  status = impl_->locate(task);
  if (status != Status::ok || num_views == 0) {
    return status;
  }
  Counters ignored;
  Counters* counted = counters != nullptr ? counters : &ignored;
  counted->total_mcus += count_mcus(layout);
  status = Status::unsupported;
  if (BaselineDecoder::is_supported(layout, task.factor)) {
    impl_->read_entries(task, record, counted);
    status = impl_->decode_as_baseline(task, counted);
  }
  if (status == Status::unsupported) {
    status = impl_->decode_by_turbo(task, counted);
  }
  impl_->trim();
  return status;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

}  // namespace fastssl::jpeg
