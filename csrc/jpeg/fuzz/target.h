// What the fuzz targets share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "jpeg/parse.h"
#include "jpeg/status.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

// Not assert: that is compiled out of optimised builds.
#define FASTSSL_FUZZ_CHECK(condition)                                                \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: violated: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                  \
    }                                                                                \
  } while (0)

namespace fastssl::jpeg {

// Larger pictures only take longer.
constexpr int64_t kMaxFuzzedPixels = int64_t{1} << 16;

inline bool is_small(const Layout& layout) {
  return static_cast<int64_t>(layout.width) * layout.height <= kMaxFuzzedPixels &&
         layout.mcus_per_row * int64_t{layout.mcu_width} * layout.mcu_rows * layout.mcu_height <=
             4 * kMaxFuzzedPixels;
}

// FNV-1a: choices that depend on the bytes alone.
inline uint32_t hash_bytes(const uint8_t* data, size_t size) {
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ data[i]) * 16777619u;
  return hash;
}

// Parses, and holds what parse says against what it promises.
inline Status check_parse(const uint8_t* data, size_t size, Layout* layout) {
  Layout header;
  const Status begun = parse_header(data, size, &header);
  const Status status = parse(data, size, layout);
  if (status != Status::ok) return status;
  FASTSSL_FUZZ_CHECK(begun == Status::ok);
  FASTSSL_FUZZ_CHECK(header.entropy_begin == layout->entropy_begin);
  FASTSSL_FUZZ_CHECK(layout->width >= 1 && layout->width <= 65535);
  FASTSSL_FUZZ_CHECK(layout->height >= 1 && layout->height <= 65535);
  FASTSSL_FUZZ_CHECK(layout->orientation >= 1 && layout->orientation <= 8);
  FASTSSL_FUZZ_CHECK(layout->num_scans >= 1);
  FASTSSL_FUZZ_CHECK(layout->frame_begin < layout->scan_begin);
  FASTSSL_FUZZ_CHECK(layout->scan_begin < layout->entropy_begin);
  FASTSSL_FUZZ_CHECK(layout->entropy_begin <= layout->entropy_end);
  FASTSSL_FUZZ_CHECK(layout->entropy_end + 2 <= size);
  FASTSSL_FUZZ_CHECK(int64_t{layout->mcus_per_row} * layout->mcu_width >= layout->width);
  FASTSSL_FUZZ_CHECK(int64_t{layout->mcu_rows} * layout->mcu_height >= layout->height);
  std::vector<uint32_t> offsets;
  const Status found = find_segments(data, size, *layout, &offsets);
  if (found != Status::ok) return status;
  const int64_t interval = layout->restart_interval, total = count_mcus(*layout);
  const int64_t wanted = interval == 0 ? 1 : (total + interval - 1) / interval;
  FASTSSL_FUZZ_CHECK(static_cast<int64_t>(offsets.size()) == wanted + 1);
  FASTSSL_FUZZ_CHECK(offsets.front() == layout->entropy_begin);
  FASTSSL_FUZZ_CHECK(offsets.back() <= size && offsets.back() == layout->entropy_end + 2);
  for (size_t i = 1; i < offsets.size(); ++i) {
    FASTSSL_FUZZ_CHECK(offsets[i] >= offsets[i - 1] + 2 && data[offsets[i] - 2] == 0xFF);
  }
  return status;
}

}  // namespace fastssl::jpeg
