// Whether a tiled JPEG holds the coefficients that it should, by the native loader's own reader.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/parse.h"
#include "jpeg/scan.h"
#include "jpeg/status.h"
#include "jpeg/tables.h"

namespace fastssl::jpeg {

// What a component should be.
struct WantedPlane {
  const uint16_t* steps;             // 64 quantisation steps in natural order.
  std::vector<const int16_t*> rows;  // Of blocks, 64 coefficients each in natural order.
  int32_t width;                     // In blocks.
};

// Reads all coefficients of a baseline JPEG of one scan, two restart segments at a time, and
// compares them. The file was written by other code than reads it here (libjpeg's), so a fault of
// either shows.
class TileComparer {
 public:
  // Compares a file with what should be in it. Blocks beyond a component's width or rows, which
  // fill the last MCUs, are read, but nobody has wanted them.
  //
  // layout: from parse of these bytes.
  // offsets: from find_segments.
  // planes: one for each component.
  //   corrupt: a coefficient or a quantisation step is another, or a segment ends early or late.
  //   unsupported: tables that are not plain baseline.
  Status compare(const uint8_t* data, const Layout& layout, const std::vector<uint32_t>& offsets,
                 const std::vector<WantedPlane>& planes);

 private:
  // A block of an MCU.
  struct Place {
    int component;
    int32_t h, v;  // Blocks of the component in an MCU.
    int32_t x, y;  // Where in the MCU.
  };

  bool has_wanted_steps(const std::vector<WantedPlane>& planes) const;
  void plan_places(const Layout& layout);
  bool compare_mcu(const std::vector<WantedPlane>& planes, int64_t mcu, Block* block, int16_t* dcs);

  ScanTables tables_;
  ScanDecoder scan_;
  std::vector<Place> places_;
  int num_components_ = 0;
  int64_t mcus_per_row_ = 0;
};

}  // namespace fastssl::jpeg
