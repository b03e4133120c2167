// Our own decoder of baseline JPEG: nothing but the restart segments that cover what is wanted, or
// what lies between the entry points around it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/color.h"
#include "jpeg/entry_points.h"
#include "jpeg/geometry.h"
#include "jpeg/idct.h"
#include "jpeg/parse.h"
#include "jpeg/scan.h"
#include "jpeg/simd.h"
#include "jpeg/status.h"
#include "jpeg/tables.h"

namespace fastssl::jpeg {

// Decodes parts of a picture into planes, from which rectangles are taken as RGB. Holds scratch
// that it uses again, so one is needed for each thread.
class BaselineDecoder {
 public:
  // Whether decode takes pictures of this kind: one scan, 8 bits, grey or YCbCr, with a sampling
  // that is known here.
  //
  // factor: 1, or 2, 4, 8 to reduce the picture by it.
  static bool is_supported(const Layout& layout, int32_t factor);

  // Decodes what some boxes show.
  //
  // layout: from parse_header of these bytes.
  // entries: of these bytes, or none. Where they lie, some pixels are rubbish.
  // boxes: inside the stored picture, or what is left of it; one at least.
  // factor: 1, or 2, 4, 8: each block becomes 4 x 4, 2 x 2 or 1 sample. Chroma that is stored
  // smaller keeps larger blocks then, as in libjpeg-turbo.
  // num_mcus: how many were read.
  // num_bytes: how many were copied to read them, without their stuffing.
  //   unsupported: tables that are not plain baseline; libjpeg-turbo may take them.
  //   corrupt: bits that are no code, a segment that ends early or late, or a picture too large for
  //   the bytes: no memory is taken for those.
  Status decode(const uint8_t* data, size_t size, const Layout& layout, const EntryPoints& entries,
                const std::vector<Rect>& boxes, int32_t factor, uint64_t* num_mcus,
                uint64_t* num_bytes);

  // Writes one of the boxes as dense RGB. Equal to the bit to the same part of libjpeg-turbo's
  // picture.
  void convert(const Rect& box, uint8_t* rgb);

  // Gives back memory that only large pictures need.
  void trim();

 private:
  // The samples of a component, as far as they lie around the boxes.
  struct Plane {
    std::vector<uint8_t> samples;
    ptrdiff_t stride;
    int32_t left, top;      // Of what is held, in samples of the whole component.
    int32_t width, height;  // Of the whole component.
    int32_t h, v;           // Blocks in an MCU.
    int32_t size;           // Samples of a block's side.
    InverseDct inverse;
    Upsampling upsampling;
    // Blocks that wait until as many are there as are transformed at once.
    int16_t* waiting[4];
    uint8_t* waiting_outs[4];
    int num_waiting;

    uint8_t* at(int32_t x, int32_t y) {
      return samples.data() + (y - top) * stride + kRowSlack + (x - left);
    }
  };

  Rect find_mcus(const Layout& layout, const Rect& box) const;
  void plan_planes(const Layout& layout, const std::vector<Rect>& boxes);
  void plan_mcus(const Layout& layout, const std::vector<Rect>& boxes);
  int64_t find_place(int64_t mcu) const;
  int64_t find_stop(int64_t begin, int64_t end) const;
  bool find_next(const uint8_t* data, Segment* out);
  bool enter(const uint8_t* data, Segment* segment) const;
  bool store_chunk(const Chunk& chunk);
  bool store_mcu(int64_t mcu, Block* block, int16_t* dc);
  void store_block(int component, int16_t* block, int32_t num, uint8_t* out);
  void transform_waiting(int component);
  void repeat_edges();
  const uint8_t* upsample(Plane* plane, const Rect& box, int32_t y, uint8_t* scratch);

  ScanTables tables_;
  const Simd simd_ = find_simd();
  int32_t num_components_ = 0;
  int32_t factor_ = 1;
  bool is_upsampled_ = false;
  int64_t mcus_per_row_ = 0;
  int64_t interval_ = 0;  // MCUs of a segment.
  int64_t total_mcus_ = 0;
  Plane planes_[3];
  ScanDecoder scan_;
  std::vector<uint32_t> offsets_;
  std::vector<uint8_t> is_wanted_;  // Of the MCUs from first_mcu_ on.
  int64_t first_mcu_ = 0;
  int64_t next_mcu_ = 0;  // Whatever is wanted before has a segment.
  const EntryPoints* entries_ = nullptr;
  bool is_lied_to_ = false;
  uint64_t num_read_ = 0;
  std::vector<uint8_t> rows_[2];
};

}  // namespace fastssl::jpeg
