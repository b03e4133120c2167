// Any bytes: what is written as tiles can be parsed, has the interval that was asked for, and
// written once more stays the same.
#include "jpeg/fuzz/target.h"
#include "jpeg/transcode.h"

using namespace fastssl::jpeg;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Layout layout;
  if (check_parse(data, size, &layout) != Status::ok || !is_small(layout)) return 0;
  const auto interval = static_cast<int32_t>(hash_bytes(data, size) % 9);
  std::vector<uint8_t> tiled, again;
  if (transcode(data, size, interval, &tiled) != Status::ok) {
    FASTSSL_FUZZ_CHECK(tiled.empty());
    return 0;
  }
  Layout written;
  FASTSSL_FUZZ_CHECK(check_parse(tiled.data(), tiled.size(), &written) == Status::ok);
  FASTSSL_FUZZ_CHECK(written.is_baseline && written.is_single_scan && written.num_scans == 1);
  FASTSSL_FUZZ_CHECK(written.restart_interval > 0);
  FASTSSL_FUZZ_CHECK(interval == 0 || written.restart_interval == interval);
  FASTSSL_FUZZ_CHECK(written.orientation == layout.orientation || written.orientation == 1);
  FASTSSL_FUZZ_CHECK(written.adobe_transform == layout.adobe_transform);
  FASTSSL_FUZZ_CHECK(written.has_jfif == layout.has_jfif);
  const Status status = transcode(tiled.data(), tiled.size(), written.restart_interval, &again);
  FASTSSL_FUZZ_CHECK(status == Status::ok && again == tiled);
  return 0;
}
