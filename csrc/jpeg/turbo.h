// Rectangles out of any JPEG by libjpeg-turbo: rows above are skipped, columns beside not computed,
// rows below not read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "jpeg/geometry.h"
#include "jpeg/status.h"

namespace fastssl::jpeg {

// Wraps a libjpeg object, a new one for every file.
class TurboDecoder {
 public:
  TurboDecoder();
  ~TurboDecoder();
  TurboDecoder(const TurboDecoder&) = delete;
  TurboDecoder& operator=(const TurboDecoder&) = delete;

  // Decodes a rectangle, equal to the bit to the same part of the whole decoded picture.
  //
  // wanted: inside the stored picture, or what is left of it; not empty.
  // factor: 1, or 2, 4, 8 to reduce the picture by it.
  // rgb: grows to hold what was decoded, and `kReadPast` bytes more.
  // picture: the wanted pixels, inside `rgb`.
  // rows_read: rows of the stored picture whose bits were read, in a file of a single scan.
  Status decode(const uint8_t* data, size_t size, const Rect& wanted, int32_t factor,
                std::vector<uint8_t>* rgb, Pixels* picture, int32_t* rows_read);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace fastssl::jpeg
