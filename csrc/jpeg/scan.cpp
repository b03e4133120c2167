#include "jpeg/scan.h"

#include <algorithm>

namespace fastssl::jpeg {
namespace {

// Blocks of a lane's buffer: enough that its changes cost nothing, few enough to stay in the first
// cache.
constexpr int64_t kChunkBlocks = 48;
static_assert(kChunkBlocks <= int64_t{Stream::kMaxBlocks}, "readable bytes behind a segment");

}  // namespace

void ScanDecoder::plan(const ScanTables& tables, const Layout& layout, int64_t spacing) {
  int32_t num = 0;
  int of_block[10];
  for (int i = 0; i < layout.num_components; ++i) {
    const Component& component = layout.components[i];
    const int32_t num_blocks = layout.num_components == 1 ? 1 : component.h * component.v;
    for (int32_t k = 0; k < num_blocks; ++k) of_block[num++] = i;
  }
  blocks_per_mcu_ = num;
  spacing_ = spacing;
  num_bytes_ = 0;
  for (Lane& lane : lanes_) {
    // A decode that failed has left something.
    lane.blocks.assign(kChunkBlocks, Block{});
    for (size_t k = 0; k < lane.blocks.size(); ++k) {
      lane.blocks[k].dc = &tables.dc(of_block[k % num]);
      lane.blocks[k].ac = &tables.ac(of_block[k % num]);
    }
  }
}

void ScanDecoder::begin(const Segment& segment, Lane* lane) {
  const size_t needed = segment.size + Stream::kPadding;
  if (lane->bytes.size() < needed) lane->bytes.resize(needed);
  const size_t length = unstuff(segment.data, segment.size, lane->bytes.data());
  num_bytes_ += length;
  lane->stream.begin(lane->bytes.data(), length, segment.skipped);
  lane->segment = segment;
  lane->chunk = {segment.begin, segment.begin, 0, lane->blocks.data(), lane->dc};
  std::copy(segment.dc, segment.dc + kMaxComponents, lane->dc);
  begin_chunk(lane);
}

void ScanDecoder::begin_chunk(Lane* lane) {
  Chunk& chunk = lane->chunk;
  chunk.begin = chunk.end;
  chunk.end = std::min(chunk.begin + kChunkBlocks / blocks_per_mcu_, lane->segment.stop);
  if (spacing_ > 0) {
    chunk.end = std::min(chunk.end, (chunk.begin / spacing_ + 1) * spacing_);
  }
  Stream& stream = lane->stream;
  stream.block = chunk.blocks;
  stream.last = chunk.blocks + (chunk.end - chunk.begin) * blocks_per_mcu_;
  stream.k = 0;
}

// False where the segment's bits did not suffice, or left bytes that nobody reads.
bool ScanDecoder::end_chunk(Lane* lane) {
  // What lies behind a segment reads as zeros, which may well be codes.
  const int64_t overrun = lane->stream.overrun();
  const bool is_end = lane->chunk.end == lane->segment.end;
  lane->chunk.end_bit =
      static_cast<uint64_t>((lane->stream.end - lane->bytes.data()) * 8 + overrun);
  return overrun <= 0 && !(is_end && !lane->segment.may_be_long && overrun <= -8);
}

}  // namespace fastssl::jpeg
