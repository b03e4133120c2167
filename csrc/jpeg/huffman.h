// Tables of the Huffman codes of baseline JPEG (ITU T.81, annexes C and F.2.2).
#pragma once

#include <cstddef>
#include <cstdint>

#include "jpeg/status.h"

namespace fastssl::jpeg {

// Where a block's k-th coefficient lies, k in the order of the zigzag, is kPlaces[1 + k]. Every
// place that two symbols can lead to is there, DC that is no code and what follows: what falls
// behind the block goes to its 65th coefficient.
constexpr int kOutside = 64;
extern const uint8_t kPlaces[1 + 2 * 255];

// A code and the tables that decode it. A table's entry holds, from the low bits on: the bits to
// drop (7), whether more work is needed (1), the coefficient's value (16), how far the symbol goes
// on in the zigzag (8): the zeros before the coefficient, and 1.
struct HuffmanTable {
  // Bits that one look takes in. 96 % of the symbols with the bits of their values fit; with 10 a
  // whole decode takes 5 % longer.
  static constexpr int kFastBits = 11;
  static constexpr uint32_t kMore = 0x80;
  // Ways that lead behind everything else: of the end of a block, and of bits that are no code.
  static constexpr uint32_t kEndOfBlock = 129;
  static constexpr uint32_t kNoCode = 255;

  uint32_t fast[1 << kFastBits];
  uint32_t limit[18];  // First 16-bit prefix above the codes of a length, left-aligned.
  int32_t offset[17];  // From a code to its symbol's index.
  uint8_t symbols[256];
  uint8_t spec[16 + 256];  // As the file has it: the counts, then the symbols.
  int32_t spec_size = 0;   // 0: never built.
  bool is_dc = false;

  // Builds from the body of a DHT segment, behind the byte that names the table.
  //
  // spec_in, available: 16 counts, then symbols.
  // used: bytes that belong to this table.
  //   unsupported: values longer than baseline pictures have.
  Status build(bool dc, const uint8_t* spec_in, size_t available, size_t* used);
};

// Completes an entry that needs more work: the same fields, with the value behind the code.
//
// bits: the next ones, from the highest on. Where there is no such code, the way is kNoCode.
uint32_t complete(const HuffmanTable& table, uint32_t entry, uint64_t bits);

}  // namespace fastssl::jpeg
