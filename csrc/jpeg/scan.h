// The restart segments of a scan on their way from bits to blocks, two at a time while there are
// two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "jpeg/entropy.h"
#include "jpeg/parse.h"
#include "jpeg/status.h"
#include "jpeg/tables.h"

namespace fastssl::jpeg {

// A restart segment, or what of it lies behind an entry point, and how much of it is wanted.
struct Segment {
  const uint8_t* data;  // With its stuffing, without the marker behind it.
  size_t size;
  int64_t begin;                    // The first MCU.
  int64_t stop;                     // Behind the last one that is wanted.
  int64_t end;                      // Behind the last one.
  bool may_be_long;                 // Bytes behind its last MCU are no damage.
  int skipped = 0;                  // Bits of the first byte that belong to MCUs before.
  int16_t dc[kMaxComponents] = {};  // Of each component, of the block before.
};

// Some MCUs of a segment.
struct Chunk {
  int64_t begin;
  int64_t end;
  uint64_t end_bit;  // Behind the last one: bits of the segment without its stuffing.
  Block* blocks;     // MCU after MCU.
  int16_t* dc;       // Of each component, of the block before these.
};

class ScanDecoder {
 public:
  // Makes ready for a picture of one scan with at most 10 blocks in an MCU.
  //
  // tables: must stay until run has ended.
  // spacing: chunks end where the number of an MCU is a multiple of it; 0: where they are full.
  void plan(const ScanTables& tables, const Layout& layout, int64_t spacing = 0);

  // Decodes segments and hands on their blocks.
  //
  // next: (Segment*) -> bool. Tells which segment is decoded next; false where there is none.
  // take: (const Chunk&) -> bool. Adds up DC, leaves the coefficients 0; false where they are
  // damaged.
  //   corrupt: what `take` refused, or a segment that ends early or late.
  template <class Next, class Take>
  Status run(const Next& next, const Take& take);

  int32_t blocks_per_mcu() const { return blocks_per_mcu_; }

  // Bytes that were copied since plan, without their stuffing.
  uint64_t num_bytes() const { return num_bytes_; }

 private:
  // What one stream works at.
  struct Lane {
    Stream stream;
    Segment segment;
    std::vector<uint8_t> bytes;
    std::vector<Block> blocks;
    Chunk chunk;
    int16_t dc[kMaxComponents];
  };

  void begin(const Segment& segment, Lane* lane);
  void begin_chunk(Lane* lane);
  bool end_chunk(Lane* lane);

  int32_t blocks_per_mcu_ = 0;
  int64_t spacing_ = 0;
  Lane lanes_[2];
  uint64_t num_bytes_ = 0;
};

template <class Next, class Take>
Status ScanDecoder::run(const Next& next, const Take& take) {
  auto start = [&](Lane* lane) {
    Segment segment;
    if (!next(&segment)) return false;
    begin(segment, lane);
    return true;
  };
  Lane* a = &lanes_[0];
  Lane* b = &lanes_[1];
  bool has_a = start(a), has_b = has_a && start(b);
  while (has_a) {
    if (has_b) {
      decode_two(&a->stream, &b->stream);
    } else {
      decode_one(&a->stream);
    }
    if (a->stream.block < a->stream.last) std::swap(a, b);
    if (!end_chunk(a) || !take(a->chunk)) return Status::corrupt;
    if (a->chunk.end < a->segment.stop) {
      begin_chunk(a);
    } else if (!start(a)) {
      std::swap(a, b);
      has_a = has_b;
      has_b = false;
    }
  }
  return Status::ok;
}

}  // namespace fastssl::jpeg
