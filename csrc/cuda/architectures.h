// Which devices a list of architectures serves. Free of CUDA and torch: a test calls it.
#pragma once

#include <cstdlib>
#include <cstring>

namespace fastssl::cuda {

// Machine code for x.y runs on devices x.z with z >= y; PTX of x.y is compiled by the driver for
// any device from x.y on. The list is as setup.py writes it: "8.0,9.0+PTX".
inline bool covers(const char* list, int major, int minor) {
  while (*list != '\0') {
    char* end = nullptr;
    const long listed_major = std::strtol(list, &end, 10);
    if (end == list || *end != '.') {
      return false;
    }
    const long listed_minor = std::strtol(end + 1, &end, 10);
    const bool has_ptx = std::strncmp(end, "+PTX", 4) == 0;
    if (listed_major == major ? listed_minor <= minor : has_ptx && listed_major < major) {
      return true;
    }
    const char* comma = std::strchr(end, ',');
    list = comma != nullptr ? comma + 1 : "";
  }
  return false;
}

}  // namespace fastssl::cuda
