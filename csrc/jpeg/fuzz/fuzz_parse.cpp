// Any bytes: the parser reads nothing outside them and keeps its promises.
#include "jpeg/fuzz/target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  fastssl::jpeg::Layout layout;
  fastssl::jpeg::check_parse(data, size, &layout);
  return 0;
}
