#include "jpeg/baseline.h"

#include <algorithm>
#include <cstring>
#include <new>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastssl::jpeg {
namespace {

// Bytes of samples that a component may keep from picture to picture.
constexpr size_t kKeptBytes = size_t{16} << 20;

// How the samples of a component become pixels.
struct Scale {
  int32_t size;  // Samples of a block's side.
  Upsampling upsampling;
};

// Finds a component's scale, if it is known here; libjpeg-turbo makes chroma's blocks larger rather
// than upsample. It falls back to repetition for pictures of some few columns, and so is not
// followed there.
bool find_scale(const Layout& layout, int i, int32_t factor, Scale* out) {
  out->size = 8 / factor;
  out->upsampling = Upsampling::none;
  if (layout.num_components == 1) {
    return true;
  }
  const Component& component = layout.components[i];
  // Pixels of a sample, in eighths of a block.
  int32_t width = layout.mcu_width / factor, height = layout.mcu_height / factor;
  while (out->size < 8 && width % (component.h * out->size * 2) == 0 &&
         height % (component.v * out->size * 2) == 0) {
    out->size *= 2;
  }
  const int32_t columns = component.h * out->size, rows = component.v * out->size;
  const bool is_narrow = layout.width <= 8 * factor, is_smooth = factor < 8;
  auto is_ratio = [&](int32_t h, int32_t v) { return columns * h == width && rows * v == height; };
  if (is_ratio(1, 1)) {
    out->upsampling = Upsampling::none;
  } else if (is_ratio(2, 1) && !is_narrow) {
    out->upsampling = is_smooth ? Upsampling::h2v1 : Upsampling::h2v1_repeated;
  } else if (is_ratio(1, 2)) {
    out->upsampling = is_smooth ? Upsampling::h1v2 : Upsampling::h1v2_repeated;
  } else if (is_ratio(2, 2) && !is_narrow && is_smooth) {
    out->upsampling = Upsampling::h2v2;
  } else if (is_ratio(4, 1)) {
    out->upsampling = Upsampling::h4v1;
  } else {
    return false;
  }
  return true;
}

// As libjpeg guesses it, where it does not warn.
bool is_ycc(const Layout& layout) {
  if (layout.has_jfif) {
    return true;
  }
  if (layout.adobe_transform >= 0) {
    return layout.adobe_transform == 1;
  }
  return layout.components[0].id == 1 && layout.components[1].id == 2 &&
         layout.components[2].id == 3;
}

int32_t divide_up(int64_t a, int64_t b) { return static_cast<int32_t>((a + b - 1) / b); }

void grow(std::vector<uint8_t>* scratch, size_t needed) {
  if (scratch->size() < needed) {
    scratch->resize(needed);
  }
}

void clear(int16_t* coefficients) {
#if defined(__SSE2__)
  // Of memset compilers make one instruction here, which takes longer than all of these.
  for (int i = 0; i < 64; i += 8) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(coefficients + i), _mm_setzero_si128());
  }
#else
  std::memset(coefficients, 0, 64 * sizeof(int16_t));
#endif
}

}  // namespace

bool BaselineDecoder::is_supported(const Layout& layout, int32_t factor) {
  if (!layout.is_baseline || !layout.is_single_scan || layout.blocks_per_mcu > 10) {
    return false;
  }
  if (layout.num_components != 1 && (layout.num_components != 3 || !is_ycc(layout))) {
    return false;
  }
  Scale scale;
  for (int i = 0; i < layout.num_components; ++i) {
    if (!find_scale(layout, i, factor, &scale)) {
      return false;
    }
  }
  return find_scale(layout, 0, factor, &scale) && scale.upsampling == Upsampling::none;
}

// The MCUs that a box needs, in rows and columns of them. A sample beyond each edge counts where
// components are upsampled.
Rect BaselineDecoder::find_mcus(const Layout& layout, const Rect& box) const {
  const int32_t w = layout.mcu_width / factor_, h = layout.mcu_height / factor_;
  // Of a reduced picture few have a chroma that is upsampled, and a pixel is many.
  const int32_t margin = factor_ == 1 || is_upsampled_ ? 1 : 0;
  return {std::max(0, box.left - margin) / w, std::max(0, box.top - margin) / h,
          divide_up(std::min(divide_up(layout.width, factor_), box.right + margin), w),
          divide_up(std::min(divide_up(layout.height, factor_), box.bottom + margin), h)};
}

void BaselineDecoder::plan_planes(const Layout& layout, const std::vector<Rect>& boxes) {
  is_upsampled_ = false;
  for (int i = 0; i < num_components_; ++i) {
    Scale scale;
    find_scale(layout, i, factor_, &scale);
    is_upsampled_ = is_upsampled_ || scale.upsampling != Upsampling::none;
  }
  Rect all = find_mcus(layout, boxes[0]);
  for (const Rect& box : boxes) {
    all = unite(all, find_mcus(layout, box));
  }
  for (int i = 0; i < num_components_; ++i) {
    Plane& plane = planes_[i];
    const Component& component = layout.components[i];
    plane.h = num_components_ == 1 ? 1 : component.h;
    plane.v = num_components_ == 1 ? 1 : component.v;
    Scale scale;
    find_scale(layout, i, factor_, &scale);
    plane.size = scale.size;
    plane.upsampling = scale.upsampling;
    plane.inverse = plane.size == 8 ? pick_inverse_dct(simd_) : pick_reduced_dct(plane.size, simd_);
    const int32_t columns = plane.h * plane.size, rows = plane.v * plane.size;
    plane.width = divide_up(int64_t{layout.width} * columns, layout.mcu_width);
    plane.height = divide_up(int64_t{layout.height} * rows, layout.mcu_height);
    plane.num_waiting = 0;
    plane.left = all.left * columns;
    plane.top = all.top * rows;
    plane.stride = ptrdiff_t{all.width()} * columns + 2 * kRowSlack;
    grow(&plane.samples, static_cast<size_t>(plane.stride) * all.height() * rows);
  }
  first_mcu_ = all.top * mcus_per_row_;
  is_wanted_.assign(static_cast<size_t>(all.height() * mcus_per_row_), 0);
}

void BaselineDecoder::plan_mcus(const Layout& layout, const std::vector<Rect>& boxes) {
  for (const Rect& box : boxes) {
    const Rect mcus = find_mcus(layout, box);
    for (int32_t y = mcus.top; y < mcus.bottom; ++y) {
      std::memset(&is_wanted_[y * mcus_per_row_ + mcus.left - first_mcu_], 1, mcus.width());
    }
  }
  next_mcu_ = first_mcu_;
  num_read_ = 0;
}

// The first MCU from `mcu` on that has an entry, or would have one if it did not follow a restart.
int64_t BaselineDecoder::find_place(int64_t mcu) const {
  const int64_t spacing = entries_->spacing();
  return spacing == 0 ? total_mcus_ : (mcu + spacing - 1) / spacing * spacing;
}

// How far a segment goes on whose first wanted MCU is next_mcu_: over what nobody wants only where
// there is no entry behind it, and about a row at once, since two streams are faster than one.
//
// begin: where it begins to be decoded.
// end: what it cannot pass.
int64_t BaselineDecoder::find_stop(int64_t begin, int64_t end) const {
  auto find = [&](int value, int64_t from) {
    const uint8_t* const at = is_wanted_.data() + (from - first_mcu_);
    const void* found = std::memchr(at, value, static_cast<size_t>(end - from));
    return found == nullptr ? end : from + (static_cast<const uint8_t*>(found) - at);
  };
  const int64_t longest = find_place(begin + mcus_per_row_);
  int64_t stop = find(0, next_mcu_);
  while (stop < end && stop < longest) {
    const int64_t next = find(1, stop);
    if (next == end || find_place(stop) <= next) break;
    stop = find(0, next);
  }
  return std::min(stop, longest);
}

// Lets a segment begin at the last entry before its first wanted MCU, and end before the first
// entry behind its last one; false where these do not lie in it.
bool BaselineDecoder::enter(const uint8_t* data, Segment* segment) const {
  const int64_t spacing = entries_->spacing();
  const uint8_t* const end = segment->data + segment->size;
  auto find = [&](const EntryPoint& entry) { return data + entry.bit / 8; };
  if (const int64_t stop = find_place(segment->stop); stop < segment->end) {
    const uint8_t* at = find(entries_->at(stop));
    if (at < segment->data || at >= end) return false;
    // The byte that both share, and what stuffs it.
    segment->size = static_cast<size_t>(std::min(at + 2, end) - segment->data);
  }
  const int64_t begin = next_mcu_ / spacing * spacing;
  if (begin <= segment->begin) return true;
  const EntryPoint& entry = entries_->at(begin);
  const uint8_t* at = find(entry);
  if (at < segment->data || at >= segment->data + segment->size) return false;
  segment->size -= static_cast<size_t>(at - segment->data);
  segment->data = at;
  segment->begin = begin;
  segment->skipped = static_cast<int>(entry.bit % 8);
  std::copy(entry.dc, entry.dc + 3, segment->dc);
  return true;
}

// Finds the next segment that holds something wanted; false where there is none.
bool BaselineDecoder::find_next(const uint8_t* data, Segment* out) {
  const int64_t limit = first_mcu_ + static_cast<int64_t>(is_wanted_.size());
  const uint8_t* const wanted = is_wanted_.data() + (next_mcu_ - first_mcu_);
  const void* found = std::memchr(wanted, 1, static_cast<size_t>(limit - next_mcu_));
  if (found == nullptr) return false;
  next_mcu_ += static_cast<const uint8_t*>(found) - wanted;
  const int64_t number = next_mcu_ / interval_, begin = number * interval_;
  const int64_t end = std::min(begin + interval_, total_mcus_);
  const uint32_t* offset = &offsets_[number];
  const int64_t stop = find_stop(std::max(begin, next_mcu_), std::min(end, limit));
  // Of the scan's last segment no decoder reads more than it needs.
  *out = {data + offset[0], offset[1] - offset[0] - 2, begin, stop, end, end == total_mcus_};
  if (entries_->spacing() > 0 && !enter(data, out)) {
    is_lied_to_ = true;
    return false;
  }
  num_read_ += static_cast<uint64_t>(stop - out->begin);
  next_mcu_ = stop;
  return true;
}

// Turns a block into samples, or lets it wait for others; clears it afterwards.
void BaselineDecoder::store_block(int component, int16_t* block, int32_t num, uint8_t* out) {
  Plane& plane = planes_[component];
  if (num == 1) {
    plane.inverse.one(block, tables_.steps(component), num, out, plane.stride);
    block[0] = 0;
    return;
  }
  plane.waiting[plane.num_waiting] = block;
  plane.waiting_outs[plane.num_waiting++] = out;
  if (plane.num_waiting == (plane.inverse.four != nullptr ? 4 : 2)) {
    transform_waiting(component);
  }
}

void BaselineDecoder::transform_waiting(int component) {
  Plane& plane = planes_[component];
  const uint16_t* steps = tables_.steps(component);
  int16_t* const* const blocks = plane.waiting;
  uint8_t* const* const outs = plane.waiting_outs;
  const int num = plane.num_waiting;
  if (num == 3) {
    // The first one once more, which gives the same samples.
    plane.waiting[3] = blocks[0];
    plane.waiting_outs[3] = outs[0];
  }
  if (num > 2) {
    plane.inverse.four(blocks, steps, outs, plane.stride);
  } else if (num == 2) {
    plane.inverse.two(blocks[0], blocks[1], steps, outs[0], outs[1], plane.stride);
  } else if (num == 1) {
    plane.inverse.one(blocks[0], steps, 64, outs[0], plane.stride);
  }
  std::for_each(blocks, blocks + num, clear);
  plane.num_waiting = 0;
}

// Turns an MCU's coefficients into samples, if they are wanted; false where they are damaged.
bool BaselineDecoder::store_mcu(int64_t mcu, Block* block, int16_t* dc) {
  const bool is_wanted = mcu >= first_mcu_ && is_wanted_[mcu - first_mcu_];
  const auto row = static_cast<int32_t>(mcu / mcus_per_row_);
  const auto column = static_cast<int32_t>(mcu % mcus_per_row_);
  for (int i = 0; i < num_components_; ++i) {
    Plane& plane = planes_[i];
    for (int32_t v = 0; v < plane.v; ++v) {
      for (int32_t h = 0; h < plane.h; ++h, ++block) {
        const int32_t num = count_coefficients(*block);
        if (num == 0) {
          return false;
        }
        dc[i] = static_cast<int16_t>(dc[i] + block->coefficients[0]);
        if (is_wanted) {
          block->coefficients[0] = dc[i];
          store_block(
              i, block->coefficients, num,
              plane.at((column * plane.h + h) * plane.size, (row * plane.v + v) * plane.size));
        } else {
          clear(block->coefficients);
        }
      }
    }
  }
  return true;
}

bool BaselineDecoder::store_chunk(const Chunk& chunk) {
  Block* blocks = chunk.blocks;
  for (int64_t mcu = chunk.begin; mcu < chunk.end; ++mcu, blocks += scan_.blocks_per_mcu()) {
    if (!store_mcu(mcu, blocks, chunk.dc)) {
      return false;
    }
  }
  for (int i = 0; i < num_components_; ++i) {
    transform_waiting(i);
  }
  return true;
}

// Makes the samples beside the picture: libjpeg repeats the outermost ones.
void BaselineDecoder::repeat_edges() {
  for (int i = 0; i < num_components_; ++i) {
    Plane& plane = planes_[i];
    if (plane.upsampling != Upsampling::h2v1 && plane.upsampling != Upsampling::h2v2) {
      continue;
    }
    const int32_t held = static_cast<int32_t>(plane.stride) - 2 * kRowSlack;
    const auto num_rows =
        static_cast<int32_t>(static_cast<int64_t>(is_wanted_.size()) / mcus_per_row_) * plane.size *
        plane.v;
    const int32_t bottom = std::min(plane.height, plane.top + num_rows);
    const bool has_right = plane.left + held >= plane.width;
    for (int32_t y = plane.top; y < bottom; ++y) {
      if (plane.left == 0) {
        *plane.at(-1, y) = *plane.at(0, y);
      }
      if (has_right) {
        *plane.at(plane.width, y) = *plane.at(plane.width - 1, y);
      }
    }
  }
}

Status BaselineDecoder::decode(const uint8_t* data, size_t size, const Layout& layout,
                               const EntryPoints& entries, const std::vector<Rect>& boxes,
                               int32_t factor, uint64_t* num_mcus, uint64_t* num_bytes) try {
  *num_mcus = 0;
  *num_bytes = 0;
  Status status = tables_.read(data, layout);
  if (status != Status::ok) {
    return status;
  }
  status = find_segments(data, size, layout, &offsets_);
  if (status != Status::ok) {
    return status;
  }
  num_components_ = layout.num_components;
  factor_ = factor;
  mcus_per_row_ = layout.mcus_per_row;
  total_mcus_ = count_mcus(layout);
  interval_ = layout.restart_interval > 0 ? layout.restart_interval : total_mcus_;
  // A block takes two bits at the least: a code for DC and the end.
  const int64_t num_blocks = total_mcus_ * layout.blocks_per_mcu;
  if (num_blocks / 4 > static_cast<int64_t>(size)) {
    return Status::corrupt;
  }
  plan_planes(layout, boxes);
  plan_mcus(layout, boxes);
  entries_ = &entries;
  is_lied_to_ = false;
  scan_.plan(tables_, layout);
  status = scan_.run([&](Segment* segment) { return find_next(data, segment); },
                     [&](const Chunk& chunk) { return store_chunk(chunk); });
  if (is_lied_to_) {
    status = Status::corrupt;
  }
  *num_mcus = num_read_;
  *num_bytes = scan_.num_bytes();
  if (status == Status::ok) {
    repeat_edges();
  }
  return status;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

void BaselineDecoder::trim() {
  for (Plane& plane : planes_) {
    if (plane.samples.capacity() > kKeptBytes) {
      plane.samples = std::vector<uint8_t>();
    }
  }
}

// Returns the samples of a component's row y of the box, as many as the picture has.
const uint8_t* BaselineDecoder::upsample(Plane* plane, const Rect& box, int32_t y,
                                         uint8_t* scratch) {
  const Upsampling kind = plane->upsampling;
  const bool is_tall =
      kind == Upsampling::h1v2 || kind == Upsampling::h2v2 || kind == Upsampling::h1v2_repeated;
  const int32_t near = is_tall ? y >> 1 : y;
  const int32_t other = (y & 1) != 0 ? near + 1 : near - 1;
  const int32_t far = is_tall ? std::min(std::max(other, 0), plane->height - 1) : near;
  if (kind == Upsampling::none || kind == Upsampling::h1v2_repeated) {
    return plane->at(box.left, near);
  }
  const int32_t shift = kind == Upsampling::h1v2 ? 0 : kind == Upsampling::h4v1 ? 2 : 1;
  const int32_t first = box.left >> shift, last = (box.right - 1) >> shift;
  upsample_row(kind, plane->at(first, near), plane->at(first, far), (y & 1) != 0, last + 1 - first,
               simd_, scratch);
  return scratch + box.left - (first << shift);
}

void BaselineDecoder::convert(const Rect& box, uint8_t* rgb) {
  for (std::vector<uint8_t>& row : rows_) {
    grow(&row, static_cast<size_t>(box.width()) + 8 + 2 * kRowSlack);
  }
  for (int32_t y = box.top; y < box.bottom; ++y, rgb += ptrdiff_t{3} * box.width()) {
    const uint8_t* luma = planes_[0].at(box.left, y);
    if (num_components_ == 1) {
      convert_grey_row(luma, box.width(), rgb);
      continue;
    }
    const uint8_t* cb = upsample(&planes_[1], box, y, rows_[0].data());
    const uint8_t* cr = upsample(&planes_[2], box, y, rows_[1].data());
    convert_row(luma, cb, cr, box.width(), simd_, rgb);
  }
}

}  // namespace fastssl::jpeg
