// Tables of the Huffman codes of baseline JPEG (ITU T.81, annexes C and F.2.2).
#pragma once

#include <cstddef>
#include <cstdint>

#include "jpeg/status.h"

namespace fastssl::jpeg {

// Where the k-th coefficient of the zigzag lies in a block. Every index that a run can lead to is
// there: what falls behind the block goes to its 65th place.
constexpr int kOutside = 64;
extern const uint8_t kZigzag[64 + 192];

// A code and the tables that decode it. A table's entry holds, from the low bits on: the bits to
// drop (7), whether more work is needed (1), the zeros before the coefficient (8), its value (16).
struct HuffmanTable {
  // Bits that one look takes in. Most symbols and the bits of their values fit: 10 and 11 were
  // measured alike, 9 and 12 slower.
  static constexpr int kFastBits = 10;
  static constexpr uint32_t kMore = 0x80;
  // Runs that lead behind everything else: of the end of a block, and of bits that are no code.
  static constexpr uint32_t kEndRun = 128;
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
// bits: the next ones, from the highest on. Where there is no such code, the run is kNoCode.
uint32_t complete(const HuffmanTable& table, uint32_t entry, uint64_t bits);

}  // namespace fastssl::jpeg
