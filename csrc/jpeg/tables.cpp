#include "jpeg/tables.h"

#include <cstring>

namespace fastssl::jpeg {
namespace {

constexpr uint8_t kHuffman = 0xC4, kQuantisation = 0xDB, kScan = 0xDA;

}  // namespace

Status ScanTables::read_quantisation(const uint8_t* body, size_t size) {
  for (; size > 0; body += 65, size -= 65) {
    if (size < 65 || body[0] > 3) {
      return Status::unsupported;
    }
    for (int k = 0; k < 64; ++k) {
      steps_[body[0]][kPlaces[1 + k]] = body[1 + k];
    }
    has_steps_[body[0]] = true;
  }
  return Status::ok;
}

Status ScanTables::read_huffman(const uint8_t* body, size_t size) {
  while (size > 0) {
    const int kind = body[0] >> 4, id = body[0] & 15;
    if (kind > 1 || id > 3) {
      return Status::unsupported;
    }
    size_t used = 0;
    if (huffman_[kind][id].build(kind == 0, body + 1, size - 1, &used) != Status::ok) {
      return Status::unsupported;
    }
    has_huffman_[kind][id] = true;
    body += 1 + used;
    size -= 1 + used;
  }
  return Status::ok;
}

Status ScanTables::read_scan(const uint8_t* body, size_t size, const Layout& layout) {
  const int num = layout.num_components;
  if (size != static_cast<size_t>(4 + 2 * num) || body[0] != num) {
    return Status::unsupported;
  }
  for (int i = 0; i < num; ++i) {
    const Component& component = layout.components[i];
    dc_of_[i] = body[2 + 2 * i] >> 4;
    ac_of_[i] = body[2 + 2 * i] & 15;
    steps_of_[i] = component.quantisation_table;
    const bool is_there = dc_of_[i] <= 3 && ac_of_[i] <= 3 && has_huffman_[0][dc_of_[i]] &&
                          has_huffman_[1][ac_of_[i]] && has_steps_[steps_of_[i]];
    if (body[1 + 2 * i] != component.id || !is_there) {
      return Status::unsupported;
    }
    for (int k = 0; k < i; ++k) {
      if (layout.components[k].id == component.id) {
        return Status::unsupported;
      }
    }
  }
  const uint8_t* last = body + 1 + 2 * num;
  const bool is_whole = last[0] == 0 && last[1] == 63 && last[2] == 0;
  return is_whole ? Status::ok : Status::unsupported;
}

Status ScanTables::read(const uint8_t* data, const Layout& layout) {
  std::memset(has_huffman_, 0, sizeof(has_huffman_));
  std::memset(has_steps_, 0, sizeof(has_steps_));
  // parse_header has checked that every segment lies in the file; only that nothing stands between
  // them is new.
  size_t at = 2;
  while (at <= layout.scan_begin) {
    const uint8_t marker = data[at + 1];
    if (data[at] != 0xFF || marker < 0xC0 || marker == 0xFF || (marker >= 0xD0 && marker <= 0xD9)) {
      return Status::unsupported;
    }
    const size_t length = static_cast<size_t>(data[at + 2] << 8 | data[at + 3]);
    const uint8_t* body = data + at + 4;
    if (length < 2 || length > layout.entropy_begin - at - 2) {
      return Status::unsupported;
    }
    Status status = Status::ok;
    if (marker == kQuantisation) {
      status = read_quantisation(body, length - 2);
    } else if (marker == kHuffman) {
      status = read_huffman(body, length - 2);
    } else if (marker == kScan) {
      return read_scan(body, length - 2, layout);
    }
    if (status != Status::ok) {
      return status;
    }
    at += 2 + length;
  }
  return Status::unsupported;
}

}  // namespace fastssl::jpeg
