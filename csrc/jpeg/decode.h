// Views out of the bytes of a JPEG: only what their crops need is decoded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "jpeg/entry_points.h"
#include "jpeg/resample.h"
#include "jpeg/status.h"

namespace fastssl::jpeg {

// How much of a picture's detail is decoded.
enum class Dct {
  exact,
  // Where no view's box is less than 2, 4 or 8 times as wide and as high as what it is resized to,
  // each 8 x 8 block becomes 4 x 4, 2 x 2 or 1 pixel. What is resized then is the box itself, whose
  // edges need not lie between two of these pixels, and its filter sees those that it cuts too.
  scaled,
};

// What decoding cost; every call adds to them.
struct Counters {
  uint64_t entropy_decoded_mcus = 0;  // Minimum coded units whose bits were read.
  uint64_t total_mcus = 0;            // Those that the files have.
  uint64_t records_refused = 0;       // Of entry points: damaged, or of other payloads.
  uint64_t bytes_copied = 0;          // Compressed bytes moved before they were read.
};

// Decodes; holds scratch that it uses again, so one is needed for each thread.
//
// The picture is libjpeg-turbo's (islow DCT, fancy upsampling, grey made RGB) with its EXIF
// orientation applied. What its crops show is equal to the bit to the same crops of the whole
// decoded picture; with Dct::scaled, of the whole picture decoded at that size.
class Decoder {
 public:
  Decoder();
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Cuts all views of a sample at the cost of at most one decode of the file.
  //
  // data, size: the file; it must stay unchanged meanwhile. Any bytes are safe.
  // views: num_views boxes in upright coordinates.
  // side: of each view in pixels.
  // out: (num_views, side, side, 3) uint8 RGB; holds rubbish unless the status is ok.
  // counters: grows by what this call did; may be null.
  // factor: by which the picture was reduced: 1, 2, 4 or 8; may be null.
  // width, height: upright, in pixels, that the picture must have; 0 if any will do.
  // record: entry points, which make it faster and change no pixel; one that is damaged or of
  // another payload is not used, and counted.
  //
  // A warning of libjpeg is an error here (Status::corrupt): the reference decoder then says
  // whether the sample is good. Status::unsupported: a JPEG that only the reference decoder takes
  // (CMYK, 12 bits, arithmetic coding). Status::corrupt also where a box passes the picture, or its
  // size is another than it must be, which is found before a pixel is decoded.
  Status decode_views(const uint8_t* data, size_t size, const ViewBox* views, int32_t num_views,
                      int32_t side, Dct dct, uint8_t* out, Counters* counters,
                      int32_t* factor = nullptr, int32_t width = 0, int32_t height = 0,
                      const EntryRecord& record = {});

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fastssl::jpeg
