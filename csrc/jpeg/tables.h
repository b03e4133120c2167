// What a baseline JPEG tells its decoder before the scan begins: Huffman codes and quantisation.
#pragma once

#include <cstddef>
#include <cstdint>

#include "jpeg/huffman.h"
#include "jpeg/parse.h"

namespace fastssl::jpeg {

// The tables of a scan. Kept from file to file, so that the same table is not built twice; none
// that a file does not bring itself is ever used.
class ScanTables {
 public:
  // Reads the segments in front of the first scan.
  //
  // data, layout: as parse_header found them.
  //   unsupported: anything that is not plain, from stray bytes to 16-bit tables.
  Status read(const uint8_t* data, const Layout& layout);

  const HuffmanTable& dc(int component) const { return huffman_[0][dc_of_[component]]; }
  const HuffmanTable& ac(int component) const { return huffman_[1][ac_of_[component]]; }
  // 64 quantisation steps in natural order.
  const uint16_t* steps(int component) const { return steps_[steps_of_[component]]; }

 private:
  Status read_quantisation(const uint8_t* body, size_t size);
  Status read_huffman(const uint8_t* body, size_t size);
  Status read_scan(const uint8_t* body, size_t size, const Layout& layout);

  HuffmanTable huffman_[2][4];  // DC, AC.
  bool has_huffman_[2][4];      // In this file.
  uint16_t steps_[4][64];
  bool has_steps_[4];
  int dc_of_[kMaxComponents];
  int ac_of_[kMaxComponents];
  int steps_of_[kMaxComponents];
};

}  // namespace fastssl::jpeg
