// How an operation on the bytes of a JPEG ended. No exception crosses a seam of this folder.
#pragma once

#include <cstdint>

namespace fastssl::jpeg {

enum class Status : int32_t {
  ok = 0,
  truncated,    // The bytes end before the picture does.
  corrupt,      // The bytes contradict the standard or themselves.
  unsupported,  // A valid JPEG, of a kind that this code leaves to the reference decoder.
  too_large,    // Beyond the limits on memory or on sizes.
  no_memory,    // The machine refused memory.
};

// The status in a word, for messages and counts.
inline const char* name(Status status) {
  switch (status) {
    case Status::ok:
      return "ok";
    case Status::truncated:
      return "truncated";
    case Status::corrupt:
      return "corrupt";
    case Status::unsupported:
      return "unsupported";
    case Status::too_large:
      return "too_large";
    case Status::no_memory:
      return "no_memory";
  }
  return "unknown";
}

}  // namespace fastssl::jpeg
