// Entropy decoding of baseline JPEG: bits to coefficients, several restart segments at a time.
//
// What limits a decoder is latency: each symbol's length tells where the next one begins. So one
// loop does symbols of two streams, whose chains of instructions overlap, and nothing else lies on
// these chains: that a block ends is a branch, which no predictor learns, but conditional moves in
// its place cost each symbol more than the wrong guess costs a block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/huffman.h"
#include "jpeg/status.h"

namespace fastssl::jpeg {

// A block while it is decoded.
struct alignas(32) Block {
  int16_t coefficients[65];  // In natural order; DC is the difference from the last one.
  int16_t end;               // Where its last symbol led, from 1 on.
  const HuffmanTable* dc;
  const HuffmanTable* ac;
};

// How many coefficients of the zigzag there are (1: DC alone), or 0 for what no encoder writes.
inline int32_t count_coefficients(const Block& block) {
  constexpr int32_t kEndOfBlock = HuffmanTable::kEndOfBlock;
  const int32_t end = block.end;
  if (end == 64) {
    return 64;
  }
  return end > kEndOfBlock && end < kEndOfBlock + 64 ? end - kEndOfBlock : 0;
}

// A restart segment while it is decoded.
struct Stream {
  // The most blocks between two checks of the position.
  static constexpr size_t kMaxBlocks = 48;
  // Readable bytes behind the end: a block takes at most 64 x 27 bits.
  static constexpr size_t kPadding = kMaxBlocks * 64 * 27 / 8 + 64;

  uint64_t bits;      // The next ones, from the highest on.
  uint64_t count;     // Of valid bits: in the lowest 6 bits, rubbish above.
  const uint8_t* at;  // What comes after them.
  uint64_t k;         // Place in the zigzag; 0: the block has not begun.
  const HuffmanTable* ac;
  Block* block;
  Block* last;  // Where to stop.
  const uint8_t* end;

  // Begins a segment of `size` bytes without stuffing, kPadding behind it.
  //
  // skipped: bits of the first byte that belong to what lies before, 0..7.
  void begin(const uint8_t* bytes, size_t size, int skipped);

  // Bits that were taken beyond the segment's end; negative: that are left.
  int64_t overrun() const { return (at - end) * 8 - static_cast<int64_t>(count & 63); }
};

// Decodes until a stream has reached its last block. Its blocks must be 0 before.
void decode_one(Stream* a);
void decode_two(Stream* a, Stream* b);

// Copies entropy-coded data without its stuffing (0xFF 0x00 becomes 0xFF) up to the first marker or
// the end.
//
// out: of `size` bytes at least.
// Returns the bytes written.
size_t unstuff(const uint8_t* data, size_t size, uint8_t* out);

}  // namespace fastssl::jpeg
