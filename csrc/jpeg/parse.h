// What the markers of a JPEG say, and where the restart segments of its scan begin. The bytes are
// hostile: nothing is read without a check of its bounds, and no memory is taken for what they
// promise, only for what is there.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/status.h"

namespace fastssl::jpeg {

constexpr int kMaxComponents = 4;

// One colour component.
struct Component {
  uint8_t id;
  uint8_t h;  // Sampling factors, 1..4.
  uint8_t v;
  uint8_t quantisation_table;  // 0..3.
};

// What stands before the first scan, and where that scan lies. Positions count from the first byte
// of the file.
struct Layout {
  int32_t width;  // Stored, before orientation: 1..65535.
  int32_t height;
  int32_t num_components;  // 1 (grey), 3, or 4 (CMYK, YCCK).
  std::array<Component, kMaxComponents> components;
  // An MCU is what the first scan is cut into if all components are in it. A picture of one
  // component has MCUs of one block whatever its factors say.
  int32_t mcu_width;   // In pixels.
  int32_t mcu_height;  // In pixels.
  int32_t mcus_per_row;
  int32_t mcu_rows;
  int32_t blocks_per_mcu;    // Above 10 the components cannot be interleaved in one scan.
  int32_t precision;         // Bits a sample: 8, or 12.
  int32_t restart_interval;  // MCUs between restart markers at the first scan; 0 none.
  int32_t adobe_transform;   // Of the Adobe segment; -1 without one.
  int32_t orientation;       // EXIF, 1..8; 1 where there is none or it is damaged.
  int32_t frame;             // The SOFn marker: 0xC0 baseline, 0xC1 extended, 0xC2 progressive.
  bool has_jfif;
  bool is_baseline;      // SOF0: sequential, Huffman coded, 8 bits.
  bool is_progressive;   // Huffman coded; its scans refine each other.
  bool is_single_scan;   // Baseline or extended, and the first scan holds all components.
  size_t frame_begin;    // Of the SOFn marker's 0xFF.
  size_t scan_begin;     // Of the first SOS marker's 0xFF.
  size_t entropy_begin;  // Of the first scan's entropy-coded data, behind the SOS segment.
  size_t entropy_end;    // Of the marker that ends that scan (restarts do not); only by parse.
  int32_t num_scans;     // Scans in the file; only by parse.
};

// Total MCUs of a picture whose components are interleaved.
inline int64_t count_mcus(const Layout& layout) {
  return static_cast<int64_t>(layout.mcus_per_row) * layout.mcu_rows;
}

// Reads the markers up to the first scan; entropy_end and num_scans stay 0. Costs nothing that
// grows with the picture.
//   truncated: the bytes end before the first scan does begin.
//   corrupt: no JPEG, or segments that contradict themselves.
//   unsupported: EXIF in more than 8 segments, a frame without height (DNL), or components
//   other than 1, 3 and 4.
Status parse_header(const uint8_t* data, size_t size, Layout* out);

// parse_header, then follows all scans to the end of the picture.
//   truncated: there is no EOI marker.
Status parse(const uint8_t* data, size_t size, Layout* out);

// Finds the restart segments of a single-scan JPEG (sequential, all components interleaved). Needs
// no more than parse_header gave, and looks at each entropy-coded byte once.
//
// offsets: where each segment's entropy-coded data begins, and as a last entry where the data of a
// further segment would begin: two bytes behind the start of the marker that ends the scan. So
// segment i has the bytes offsets[i] .. offsets[i + 1] - 2, and offsets.size() is the number of
// segments plus 1; without restart markers there is one segment. Fill bytes (0xFF) before a marker
// count as the segment's, which is where any decoder passes over them.
//   truncated: the scan's end is missing.
//   corrupt: restart markers out of their order, too few or too many of them for the MCUs.
//   unsupported: not a single-scan JPEG, or of 4 GiB and more.
Status find_segments(const uint8_t* data, size_t size, const Layout& layout,
                     std::vector<uint32_t>* offsets);

}  // namespace fastssl::jpeg
