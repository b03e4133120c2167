// Huffman tables that fit a picture: how often its symbols occur, and codes of the fewest bits.
#pragma once

#include <cstdint>

namespace fastssl::jpeg {

// Symbols of one table and how often they occur. 0 at the start.
struct SymbolCounts {
  uint32_t of[256];
};

// A Huffman code as a DHT segment has it.
struct HuffmanCode {
  uint8_t num_of_length[17];  // Codes of 1..16 bits; the first entry is 0.
  uint8_t symbols[256];       // By the length of their codes.
};

// Counts the symbols of a block as baseline JPEG codes it.
//
// block: 64 coefficients in natural order.
// last_dc: the DC coefficient of the component's block before.
// Returns false where a coefficient is beyond baseline's range, at which nothing is counted right.
bool count_block(const int16_t* block, int32_t last_dc, SymbolCounts* dc, SymbolCounts* ac);

// Builds the code of the fewest bits, none longer than 16 and none of ones alone (ITU T.81, K.2).
//
// counts: of at least one symbol.
void build_code(const SymbolCounts& counts, HuffmanCode* out);

}  // namespace fastssl::jpeg
