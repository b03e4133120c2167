#include "jpeg/compare.h"

#include <algorithm>
#include <cstring>
#include <new>

namespace fastssl::jpeg {

bool TileComparer::has_wanted_steps(const std::vector<WantedPlane>& planes) const {
  for (int i = 0; i < num_components_; ++i) {
    if (std::memcmp(tables_.steps(i), planes[i].steps, 64 * sizeof(uint16_t)) != 0) return false;
  }
  return true;
}

void TileComparer::plan_places(const Layout& layout) {
  const bool is_one = layout.num_components == 1;
  places_.clear();
  for (int i = 0; i < layout.num_components; ++i) {
    const Component& component = layout.components[i];
    const int32_t h = is_one ? 1 : component.h, v = is_one ? 1 : component.v;
    for (int32_t k = 0; k < h * v; ++k) places_.push_back({i, h, v, k % h, k / h});
  }
}

// Compares the blocks of an MCU and clears them.
bool TileComparer::compare_mcu(const std::vector<WantedPlane>& planes, int64_t mcu, Block* block,
                               int16_t* dcs) {
  const int64_t row = mcu / mcus_per_row_, column = mcu % mcus_per_row_;
  for (const Place& place : places_) {
    if (count_coefficients(*block) == 0) return false;
    const WantedPlane& plane = planes[place.component];
    const int64_t x = column * place.h + place.x, y = row * place.v + place.y;
    int16_t& dc = dcs[place.component];
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

Status TileComparer::compare(const uint8_t* data, const Layout& layout,
                             const std::vector<uint32_t>& offsets,
                             const std::vector<WantedPlane>& planes) try {
  const Status status = tables_.read(data, layout);
  if (status != Status::ok) return status;
  num_components_ = layout.num_components;
  if (!has_wanted_steps(planes)) return Status::corrupt;
  mcus_per_row_ = layout.mcus_per_row;
  plan_places(layout);
  scan_.plan(tables_, layout);
  const int64_t total = count_mcus(layout);
  const int64_t interval = layout.restart_interval > 0 ? layout.restart_interval : total;
  size_t num_begun = 0;
  auto next = [&](Segment* segment) {
    const auto begin = static_cast<int64_t>(num_begun) * interval;
    if (begin >= total) return false;
    const uint32_t* offset = &offsets[num_begun++];
    const int64_t end = std::min(begin + interval, total);
    *segment = {data + offset[0], offset[1] - offset[0] - 2, begin, end, end, false};
    return true;
  };
  auto take = [&](const Chunk& chunk) {
    Block* block = chunk.blocks;
    for (int64_t mcu = chunk.begin; mcu < chunk.end; ++mcu, block += scan_.blocks_per_mcu()) {
      if (!compare_mcu(planes, mcu, block, chunk.dc)) return false;
    }
    return true;
  };
  return scan_.run(next, take);
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

}  // namespace fastssl::jpeg
