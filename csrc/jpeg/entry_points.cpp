#include "jpeg/entry_points.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "jpeg/crc32.h"

namespace fastssl::jpeg {
namespace {

constexpr size_t kHeaderBytes = 10;
constexpr int64_t kMaxSpacing = UINT16_MAX;
// Of a payload, so that 32 bits count the bits between two entries.
constexpr size_t kMaxPayload = size_t{1} << 28;
// A value that takes as many ones as this is written as it is.
constexpr uint32_t kEscape = 16;
constexpr uint32_t kMaxRice = 24;

// Whether the state at an MCU is known without an entry.
bool is_known(int64_t mcu, int64_t interval) { return mcu % interval == 0; }

int64_t find_interval(const Layout& layout) {
  return layout.restart_interval > 0 ? layout.restart_interval : count_mcus(layout);
}

uint32_t fold(int32_t value) {
  return static_cast<uint32_t>(value) << 1 ^ static_cast<uint32_t>(value >> 31);
}

int32_t unfold(uint32_t value) {
  return static_cast<int32_t>(value >> 1) ^ -static_cast<int32_t>(value & 1);
}

// The checksum of a record: it stands for the payload too.
uint32_t find_check(const uint8_t* record, size_t size, uint32_t payload_crc) {
  return crc32(record + 4, size - 4) ^ payload_crc;
}

class BitWriter {
 public:
  explicit BitWriter(std::vector<uint8_t>* out) : out_(out) {}

  void write(uint64_t value, uint32_t count) {
    for (; count > 0; --count) {
      if (room_ == 0) {
        out_->push_back(0);
        room_ = 8;
      }
      --room_;
      out_->back() = static_cast<uint8_t>(out_->back() | (value >> (count - 1) & 1) << room_);
    }
  }

  void write_rice(uint32_t value, uint32_t rice) {
    const uint32_t ones = value >> rice;
    if (ones >= kEscape) {
      write((1u << kEscape) - 1, kEscape);
      write(value, 32);
    } else {
      write((uint64_t{2} << ones) - 2, ones + 1);
      write(value, rice);
    }
  }

 private:
  std::vector<uint8_t>* out_;
  uint32_t room_ = 0;  // Bits of the last byte that are free.
};

class BitReader {
 public:
  BitReader(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  uint32_t read_rice(uint32_t rice) {
    refill();
    const auto ones = static_cast<uint32_t>(__builtin_clzll(~bits_ | 1));
    if (ones >= kEscape) {
      drop(kEscape);
      refill();
      return take(32);
    }
    drop(ones + 1);
    return ones << rice | take(rice);  // At most 16 + 24 bits.
  }

  // Whether it has not read beyond its end, nor left a whole byte.
  bool is_at_end() const { return at_ == size_ && !is_beyond_ && count_ < 8; }

 private:
  // Afterwards there are at least 56 bits; those behind the end are zeros.
  void refill() {
    while (count_ <= 56) {
      if (at_ < size_) {
        bits_ |= uint64_t{data_[at_++]} << (56 - count_);
        count_ += 8;
      } else {
        return;
      }
    }
  }

  void drop(uint32_t count) {
    is_beyond_ = is_beyond_ || count > count_;
    count_ -= std::min(count, count_);
    bits_ <<= count;
  }

  uint32_t take(uint32_t count) {
    if (count == 0) return 0;
    const auto value = static_cast<uint32_t>(bits_ >> (64 - count));
    drop(count);
    return value;
  }

  const uint8_t* data_;
  size_t size_;
  size_t at_ = 0;
  uint64_t bits_ = 0;
  uint32_t count_ = 0;
  bool is_beyond_ = false;
};

// The parameter that writes values in few bits: of those near the logarithm of their mean the best.
uint32_t choose_rice(const std::vector<uint32_t>& values) {
  auto cost = [&](uint32_t rice) {
    uint64_t bits = 0;
    for (const uint32_t value : values) {
      bits += value >> rice < kEscape ? (value >> rice) + 1 + rice : kEscape + 32;
    }
    return bits;
  };
  uint32_t best = 0;
  uint64_t least = cost(0);
  for (uint32_t rice = 1; rice <= kMaxRice; ++rice) {
    if (const uint64_t bits = cost(rice); bits < least) {
      best = rice;
      least = bits;
    }
  }
  return best;
}

// Writes every `stride`-th entry.
void write_record(const std::vector<EntryPoint>& points, int64_t spacing, int64_t stride,
                  const Layout& layout, uint32_t crc, std::vector<uint8_t>* out) {
  const int64_t interval = find_interval(layout), step = spacing * stride;
  const int num_dc = layout.num_components;
  std::vector<uint32_t> values[4];
  EntryPoint last = {uint64_t{layout.entropy_begin} * 8, {0, 0, 0}};
  for (int64_t mcu = step; mcu < count_mcus(layout); mcu += step) {
    if (is_known(mcu, interval)) continue;
    const EntryPoint& point = points[mcu / spacing - 1];
    values[0].push_back(static_cast<uint32_t>(point.bit - last.bit));
    for (int i = 0; i < num_dc; ++i) values[1 + i].push_back(fold(point.dc[i] - last.dc[i]));
    last = point;
  }
  out->clear();
  if (values[0].empty()) return;
  out->assign(kHeaderBytes, 0);
  (*out)[4] = static_cast<uint8_t>(step);
  (*out)[5] = static_cast<uint8_t>(step >> 8);
  for (int i = 0; i <= num_dc; ++i) (*out)[6 + i] = static_cast<uint8_t>(choose_rice(values[i]));
  BitWriter writer(out);
  for (size_t k = 0; k < values[0].size(); ++k) {
    for (int i = 0; i <= num_dc; ++i) writer.write_rice(values[i][k], (*out)[6 + i]);
  }
  const uint32_t check = find_check(out->data(), out->size(), crc);
  for (int i = 0; i < 4; ++i) (*out)[i] = static_cast<uint8_t>(check >> 8 * i);
}

}  // namespace

Status EntryPoints::read(const EntryRecord& record, size_t size, const Layout& layout) try {
  clear();
  const uint8_t* head = record.data;
  if (record.size < kHeaderBytes || size > kMaxPayload) return Status::corrupt;
  const uint32_t check = head[0] | head[1] << 8 | head[2] << 16 | uint32_t{head[3]} << 24;
  if (check != find_check(head, record.size, record.payload_crc)) return Status::corrupt;
  const int64_t spacing = head[4] | head[5] << 8;
  const int num_dc = layout.num_components;
  if (spacing == 0 || num_dc > 3) return Status::corrupt;
  for (int i = 0; i <= num_dc; ++i) {
    if (head[6 + i] > kMaxRice) return Status::corrupt;
  }
  const int64_t total = count_mcus(layout), interval = find_interval(layout);
  // An entry takes a bit at the least: no memory for more than there can be.
  if ((total - 1) / spacing > static_cast<int64_t>(record.size) * 8 + total / interval) {
    return Status::corrupt;
  }
  points_.resize((total - 1) / spacing);
  EntryPoint last = {uint64_t{layout.entropy_begin} * 8, {0, 0, 0}};
  BitReader reader(head + kHeaderBytes, record.size - kHeaderBytes);
  for (int64_t mcu = spacing; mcu < total; mcu += spacing) {
    if (is_known(mcu, interval)) continue;
    last.bit += reader.read_rice(head[6]);
    for (int i = 0; i < num_dc; ++i) {
      last.dc[i] = static_cast<int16_t>(last.dc[i] + unfold(reader.read_rice(head[7 + i])));
    }
    if (last.bit / 8 >= size) return Status::corrupt;
    points_[mcu / spacing - 1] = last;
  }
  if (!reader.is_at_end()) return Status::corrupt;
  spacing_ = spacing;
  return Status::ok;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

// Adds up DC, and notes where the MCU behind the chunk begins, without the stuffing.
bool EntryFinder::take(const Chunk& chunk) {
  Block* block = chunk.blocks;
  for (int64_t mcu = chunk.begin; mcu < chunk.end; ++mcu) {
    for (const int component : component_of_) {
      if (count_coefficients(*block) == 0) return false;
      chunk.dc[component] = static_cast<int16_t>(chunk.dc[component] + block->coefficients[0]);
      std::memset(block->coefficients, 0, 64 * sizeof(int16_t));
      ++block;
    }
  }
  if (chunk.end < total_ && chunk.end % spacing_ == 0 && !is_known(chunk.end, interval_)) {
    EntryPoint& point = points_[chunk.end / spacing_ - 1];
    point.bit = chunk.end_bit;
    std::copy(chunk.dc, chunk.dc + 3, point.dc);
  }
  return true;
}

// Makes bits of a restart segment without its stuffing bits of the file.
void EntryFinder::add_stuffing(const uint8_t* data, int64_t spacing) {
  int64_t segment = -1;
  uint64_t raw = 0, plain = 0;  // The same byte, with and without stuffing.
  for (int64_t mcu = spacing; mcu < total_; mcu += spacing) {
    if (is_known(mcu, interval_)) continue;
    if (mcu / interval_ != segment) {
      segment = mcu / interval_;
      raw = offsets_[segment];
      plain = 0;
    }
    EntryPoint& point = points_[mcu / spacing - 1];
    for (; plain < point.bit / 8; ++plain) raw += data[raw] == 0xFF ? 2 : 1;
    point.bit = raw * 8 + point.bit % 8;
  }
}

Status EntryFinder::walk(const uint8_t* data, const Layout& layout, int64_t spacing) {
  component_of_.clear();
  for (int i = 0; i < layout.num_components; ++i) {
    const Component& component = layout.components[i];
    const int num = layout.num_components == 1 ? 1 : component.h * component.v;
    component_of_.insert(component_of_.end(), num, i);
  }
  spacing_ = spacing;
  points_.assign((total_ - 1) / spacing, EntryPoint{});
  scan_.plan(tables_, layout, spacing);
  int64_t number = 0;
  auto next = [&](Segment* segment) {
    const int64_t begin = number * interval_, end = std::min(begin + interval_, total_);
    if (begin >= total_) return false;
    const uint32_t* offset = &offsets_[number++];
    *segment = {data + offset[0], offset[1] - offset[0] - 2, begin, end, end, end == total_};
    return true;
  };
  const Status status = scan_.run(next, [&](const Chunk& chunk) { return take(chunk); });
  if (status == Status::ok) add_stuffing(data, spacing);
  return status;
}

// Reads what stands before the scan, and finds its restart segments.
Status EntryFinder::begin(const uint8_t* data, size_t size, Layout* layout) {
  Status status = parse_header(data, size, layout);
  if (status != Status::ok) return status;
  const bool is_known_kind = layout->num_components == 1 || layout->num_components == 3;
  if (!layout->is_baseline || !layout->is_single_scan || !is_known_kind || size > kMaxPayload) {
    return Status::unsupported;
  }
  status = tables_.read(data, *layout);
  if (status == Status::ok) status = find_segments(data, size, *layout, &offsets_);
  if (status != Status::ok) return status;
  total_ = count_mcus(*layout);
  interval_ = find_interval(*layout);
  // A block takes two bits at the least: no memory for what the bytes cannot hold.
  return total_ * layout->blocks_per_mcu / 4 > num_bytes() ? Status::corrupt : Status::ok;
}

Status EntryFinder::find(const uint8_t* data, size_t size, uint32_t crc, int32_t bytes_apart,
                         size_t most, std::vector<uint8_t>* out) try {
  out->clear();
  Layout layout;
  Status status = begin(data, size, &layout);
  if (status != Status::ok) return status;
  const int64_t wanted = bytes_apart * total_ / num_bytes();
  const int64_t spacing = std::min(std::max<int64_t>(1, wanted), kMaxSpacing);
  if (spacing >= total_ || spacing >= interval_) return Status::ok;
  status = walk(data, layout, spacing);
  if (status != Status::ok) return status;
  for (int64_t stride = 1; spacing * stride <= kMaxSpacing; ++stride) {
    write_record(points_, spacing, stride, layout, crc, out);
    if (out->size() <= most) return Status::ok;
  }
  out->clear();
  return Status::ok;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

Status EntryFinder::check(const uint8_t* data, size_t size, const EntryRecord& record) try {
  Layout layout;
  Status status = begin(data, size, &layout);
  if (status == Status::ok) status = said_.read(record, size, layout);
  if (status == Status::ok) status = walk(data, layout, said_.spacing());
  if (status != Status::ok) return status;
  for (int64_t mcu = spacing_; mcu < total_; mcu += spacing_) {
    if (is_known(mcu, interval_)) continue;
    const EntryPoint &is = points_[mcu / spacing_ - 1], &said = said_.at(mcu);
    const int num = layout.num_components;
    if (is.bit != said.bit || !std::equal(is.dc, is.dc + num, said.dc)) return Status::corrupt;
  }
  return Status::ok;
} catch (const std::bad_alloc&) {
  return Status::no_memory;
}

}  // namespace fastssl::jpeg
