#include "jpeg/compare.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

namespace fastssl::jpeg {
namespace {

constexpr int64_t kChunkBlocks = Stream::kMaxBlocks;

}  // namespace

TileComparer::TileComparer() { build_stop(&stop_); }

bool TileComparer::has_wanted_steps(const std::vector<WantedPlane>& planes) const {
  for (int i = 0; i < num_components_; ++i) {
    if (std::memcmp(tables_.steps(i), planes[i].steps, 64 * sizeof(uint16_t)) != 0) return false;
  }
  return true;
}

void TileComparer::plan_blocks(const Layout& layout) {
  const bool is_one = layout.num_components == 1;
  places_.clear();
  for (int i = 0; i < layout.num_components; ++i) {
    const Component& component = layout.components[i];
    const int32_t h = is_one ? 1 : component.h, v = is_one ? 1 : component.v;
    for (int32_t k = 0; k < h * v; ++k) places_.push_back({i, h, v, k % h, k / h});
  }
  for (Lane& lane : lanes_) {
    lane.blocks.assign(kChunkBlocks + 1, Block{});
    for (size_t k = 0; k < lane.blocks.size(); ++k) {
      lane.blocks[k].ac = &tables_.ac(places_[k % places_.size()].component);
      lane.blocks[k].next_dc = &tables_.dc(places_[(k + 1) % places_.size()].component);
    }
  }
}

// Begins with the next segment; false where there is none.
bool TileComparer::start(const uint8_t* data, const std::vector<uint32_t>& offsets, Lane* lane) {
  if (next_segment_ * interval_ >= total_mcus_) return false;
  const size_t begin = offsets[next_segment_], size = offsets[next_segment_ + 1] - begin - 2;
  if (lane->bytes.size() < size + Stream::kPadding) lane->bytes.resize(size + Stream::kPadding);
  lane->stream.begin(lane->bytes.data(), unstuff(data + begin, size, lane->bytes.data()));
  lane->next_mcu = next_segment_++ * interval_;
  lane->end = std::min(lane->next_mcu + interval_, total_mcus_);
  std::fill(lane->dc, lane->dc + kMaxComponents, int16_t{0});
  begin_chunk(lane);
  return true;
}

void TileComparer::begin_chunk(Lane* lane) {
  const auto blocks_per_mcu = static_cast<int64_t>(places_.size());
  lane->chunk_end = std::min(lane->next_mcu + kChunkBlocks / blocks_per_mcu, lane->end);
  Stream& stream = lane->stream;
  stream.block = lane->blocks.data();
  stream.last = stream.block + (lane->chunk_end - lane->next_mcu) * blocks_per_mcu;
  stream.last[-1].next_dc = &stop_;
  stream.next = &tables_.dc(0);
  stream.k = 0;
}

// Compares the blocks of an MCU and clears them.
bool TileComparer::compare_mcu(const std::vector<WantedPlane>& planes, int64_t mcu, Lane* lane,
                               Block* block) {
  const int64_t row = mcu / mcus_per_row_, column = mcu % mcus_per_row_;
  for (const Place& place : places_) {
    if (count_coefficients(*block) == 0) return false;
    const WantedPlane& plane = planes[place.component];
    const int64_t x = column * place.h + place.x, y = row * place.v + place.y;
    int16_t& dc = lane->dc[place.component];
    block->coefficients[0] = dc = static_cast<int16_t>(dc + block->coefficients[0]);
    const bool is_wanted = x < plane.width && y < static_cast<int64_t>(plane.rows.size());
    if (is_wanted && std::memcmp(plane.rows[y] + 64 * x, block->coefficients, 128) != 0) {
      return false;
    }
    std::memset(block->coefficients, 0, 64 * sizeof(int16_t));
    ++block;
  }
  return true;
}

bool TileComparer::finish_chunk(const std::vector<WantedPlane>& planes, Lane* lane) {
  // What lies behind a segment reads as zeros, which may well be codes; and a byte that nobody
  // reads is one too many.
  const int64_t overrun = lane->stream.overrun();
  if (overrun > 0 || (lane->chunk_end == lane->end && overrun <= -8)) return false;
  lane->stream.last[-1].next_dc = &tables_.dc(0);
  Block* block = lane->blocks.data();
  for (; lane->next_mcu < lane->chunk_end; ++lane->next_mcu, block += places_.size()) {
    if (!compare_mcu(planes, lane->next_mcu, lane, block)) return false;
  }
  return true;
}

Status TileComparer::compare(const uint8_t* data, const Layout& layout,
                             const std::vector<uint32_t>& offsets,
                             const std::vector<WantedPlane>& planes) try {
  const Status status = tables_.read(data, layout);
  if (status != Status::ok) return status;
  num_components_ = layout.num_components;
  if (!has_wanted_steps(planes)) return Status::corrupt;
  mcus_per_row_ = layout.mcus_per_row;
  total_mcus_ = count_mcus(layout);
  interval_ = layout.restart_interval > 0 ? layout.restart_interval : total_mcus_;
  next_segment_ = 0;
  plan_blocks(layout);
  Lane* a = &lanes_[0];
  Lane* b = &lanes_[1];
  bool has_a = start(data, offsets, a), has_b = has_a && start(data, offsets, b);
  while (has_a) {
    if (has_b) {
      decode_two(&a->stream, &b->stream);
    } else {
      decode_one(&a->stream);
    }
    if (a->stream.block < a->stream.last) {
      std::swap(a, b);
      std::swap(has_a, has_b);
    }
    if (!finish_chunk(planes, a)) return Status::corrupt;
    if (a->next_mcu < a->end) {
      begin_chunk(a);
    } else if (!start(data, offsets, a)) {
      std::swap(a, b);
      has_a = has_b;
      has_b = false;
    }
  }
  return Status::ok;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

}  // namespace fastssl::jpeg
