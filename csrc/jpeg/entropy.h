// Entropy decoding of baseline JPEG: bits to coefficients, several restart segments at a time.
//
// What limits a decoder is latency: each symbol's length tells where the next one begins, and
// whether a block ends here is a branch that no predictor learns. So there is no such branch: the
// end of a block is arithmetic on pointers, and one loop does one symbol of several streams, whose
// chains of instructions overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/huffman.h"
#include "jpeg/status.h"

namespace fastssl::jpeg {

// A block as streams write it: 64 coefficients in natural order (DC is the difference from the last
// one), at kOutside what falls outside, at kEnd where its last symbol led.
constexpr int kBlockStride = 80;
constexpr int kEnd = 72;

// How many coefficients of the zigzag there are (1: DC alone), or 0 for what no encoder writes.
inline int32_t count_coefficients(const int16_t* block) {
  constexpr int32_t kEndRun = HuffmanTable::kEndRun;
  const int32_t end = block[kEnd];
  if (end == 64) {
    return 64;
  }
  return end > kEndRun + 1 && end <= kEndRun + 64 ? end - kEndRun - 1 : 0;
}

// One block of an MCU: its tables, and what comes after it.
struct Step {
  const HuffmanTable* ac;
  const HuffmanTable* next_dc;
  const Step* next;
};

// A restart segment while it is decoded.
struct Stream {
  // Readable bytes behind the end, of value 0.
  static constexpr size_t kPadding = 16;

  uint64_t bits;             // The next ones, from the highest on.
  int64_t count;             // Of valid bits.
  const uint8_t* at;         // What comes after them.
  const uint8_t* limit;      // `at` stops there: 8 bytes behind the end.
  const HuffmanTable* next;  // Of the next symbol.
  const Step* step;          // The block that it belongs to.
  uint64_t k;                // Place in the zigzag.
  int16_t* block;
  int16_t* last;  // Where to stop: behind the blocks that there is room for.

  // Begins a segment of `size` bytes without stuffing, kPadding behind it; `first` is the first
  // block of an MCU, `dc` its table.
  void begin(const uint8_t* bytes, size_t size, const Step* first, const HuffmanTable* dc);

  // Bits that were taken beyond the segment's end; negative: that are left.
  int64_t overrun() const { return (at - limit + 8) * 8 - count; }
};

// Decodes until a stream has reached its last block. Blocks must be all 0 before.
void decode_one(Stream* a);
void decode_two(Stream* a, Stream* b);

// Copies entropy-coded data without its stuffing (0xFF 0x00 becomes 0xFF) up to the first marker or
// the end.
//
// out: of `size` bytes at least, and Stream::kPadding more, which become 0 behind the end.
// Returns the bytes written.
size_t unstuff(const uint8_t* data, size_t size, uint8_t* out);

}  // namespace fastssl::jpeg
