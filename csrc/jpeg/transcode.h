// Tiled JPEG: the same coefficients, written so that a crop can be decoded alone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/parse.h"
#include "jpeg/status.h"

namespace fastssl::jpeg {

// Returns the restart interval that transcode takes by itself: of those whose restarts cost at most
// 2 % of the bytes the smallest, n, or a divisor of the MCUs of a row if there is one in n .. 2 n;
// a whole row at the most. So segments may pass from one row into the next. A smaller interval
// saves less than its bytes cost: docs/shards.md has the measurements.
//
// layout: of the picture as it will be stored.
// entropy_bytes: of all its scans.
int32_t choose_interval(const Layout& layout, size_t entropy_bytes);

// Writes a JPEG again as baseline JPEG of one interleaved scan with optimised Huffman tables and
// restart markers. No coefficient and no quantisation table changes; before it answers, it has read
// what it wrote and compared every coefficient.
//
// Kept: the JFIF, Adobe and ICC segments. An EXIF orientation is applied to the coefficients where
// every block lies in a whole MCU on the side that it moves to; else a minimal EXIF segment with
// nothing but the orientation is written. All other APPn and comments are dropped, and so is what
// follows the picture.
//
// interval: MCUs between restart markers, 1..65535; 0 takes choose_interval's.
// out: the new file; empty unless the status is ok.
//
//   truncated, corrupt: libjpeg had to guess at pixels, or warned of that.
//   unsupported: what cannot be baseline of one scan: 12 bits, arithmetic coding, lossless, more
//   than 10 blocks in an MCU, quantisation steps above 255; or a progressive file that lacks its
//   last bits, whose decoders smooth what is missing and would not do so any more.
//   too_large: its coefficients take more than 1 GiB, or a side has more than 65,500 pixels, which
//   is where libjpeg ends.
Status transcode(const uint8_t* data, size_t size, int32_t interval, std::vector<uint8_t>* out);

}  // namespace fastssl::jpeg
