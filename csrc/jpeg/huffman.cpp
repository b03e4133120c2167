#include "jpeg/huffman.h"

#include <algorithm>
#include <cstring>

namespace fastssl::jpeg {
namespace {

constexpr uint32_t kMaxLength = 16;
// Bits of the longest values of 8-bit pictures.
constexpr int32_t kMaxDcSize = 11;
constexpr int32_t kMaxAcSize = 10;

// The value that `size` extra bits stand for.
int32_t extend(int32_t bits, int32_t size) {
  return bits < 1 << (size - 1) ? bits - (1 << size) + 1 : bits;
}

uint32_t make_entry(int32_t value, uint32_t way, uint32_t low) {
  return way << 24 | static_cast<uint32_t>(static_cast<uint16_t>(value)) << 8 | low;
}

// How far a symbol goes on; `size` is that of its value.
uint32_t find_way(bool is_dc, uint8_t symbol, uint32_t size) {
  const uint32_t run = is_dc ? 0 : symbol >> 4;
  const bool is_end = !is_dc && size == 0 && run != 15;
  return is_end ? HuffmanTable::kEndOfBlock : run + 1;
}

// Fills the entries that begin with a symbol's code of `length` bits, the first of them at `out`.
void fill_entries(uint8_t symbol, uint32_t length, bool is_dc, uint32_t* out) {
  const uint32_t size = is_dc ? symbol : symbol & 15;
  const uint32_t way = find_way(is_dc, symbol, size);
  const uint32_t room = HuffmanTable::kFastBits - length;
  if (size == 0) {
    std::fill_n(out, 1u << room, make_entry(0, way, length));
  } else if (size > room) {
    const auto kept = static_cast<int32_t>(size);
    std::fill_n(out, 1u << room, make_entry(kept, way, HuffmanTable::kMore | length));
  } else {
    const uint32_t num = 1u << (room - size);
    for (int32_t bits = 0; bits < 1 << size; ++bits, out += num) {
      const int32_t value = extend(bits, static_cast<int32_t>(size));
      std::fill_n(out, num, make_entry(value, way, length + size));
    }
  }
}

}  // namespace

// clang-format off
const uint8_t kPlaces[1 + 2 * 255] = {
    kOutside,  // Nothing leads there.
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
#define FASTSSL_SIXTEEN 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64
#define FASTSSL_SIXTY_FOUR FASTSSL_SIXTEEN, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN
    FASTSSL_SIXTY_FOUR, FASTSSL_SIXTY_FOUR, FASTSSL_SIXTY_FOUR, FASTSSL_SIXTY_FOUR,
    FASTSSL_SIXTY_FOUR, FASTSSL_SIXTY_FOUR, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN,
    64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64,
};
// clang-format on

Status HuffmanTable::build(bool dc, const uint8_t* spec_in, size_t available, size_t* used) {
  if (available < kMaxLength) {
    return Status::corrupt;
  }
  int32_t num_symbols = 0;
  for (uint32_t i = 0; i < kMaxLength; ++i) {
    num_symbols += spec_in[i];
  }
  *used = kMaxLength + num_symbols;
  if (num_symbols > 256 || *used > available) {
    return Status::corrupt;
  }
  const auto size = static_cast<int32_t>(*used);
  // Many files carry the standard's own tables, one after the other the same.
  if (spec_size == size && is_dc == dc && std::memcmp(spec, spec_in, size) == 0) {
    return Status::ok;
  }
  spec_size = 0;
  is_dc = dc;
  std::memcpy(spec, spec_in, size);
  std::memcpy(symbols, spec_in + kMaxLength, num_symbols);
  std::fill(fast, fast + (1 << kFastBits), kMore);  // No code, or a longer one.
  uint32_t code = 0;
  int32_t index = 0;
  for (uint32_t length = 1; length <= kMaxLength; ++length) {
    offset[length] = index - static_cast<int32_t>(code);
    for (int32_t i = 0; i < spec[length - 1]; ++i, ++index, ++code) {
      if (code >= 1u << length) {
        return Status::corrupt;
      }
      if (dc ? symbols[index] > kMaxDcSize : (symbols[index] & 15) > kMaxAcSize) {
        return Status::unsupported;
      }
      if (length <= uint32_t{kFastBits}) {
        fill_entries(symbols[index], length, dc, fast + (code << (kFastBits - length)));
      }
    }
    limit[length] = code << (kMaxLength - length);
    code <<= 1;
  }
  spec_size = size;
  return Status::ok;
}

uint32_t complete(const HuffmanTable& table, uint32_t entry, uint64_t bits) {
  uint32_t length = entry & 0x1F;
  uint32_t size = entry >> 8 & 0xFFFF;
  uint32_t way = entry >> 24;
  if (length == 0) {
    const auto prefix = static_cast<uint32_t>(bits >> 48);
    length = HuffmanTable::kFastBits + 1;
    while (length <= kMaxLength && prefix >= table.limit[length]) {
      ++length;
    }
    if (length > kMaxLength) {
      return make_entry(0, HuffmanTable::kNoCode, 0);
    }
    const auto code = static_cast<int32_t>(prefix >> (kMaxLength - length));
    const uint8_t symbol = table.symbols[(code + table.offset[length]) & 0xFF];
    size = table.is_dc ? symbol : symbol & 15;
    way = find_way(table.is_dc, symbol, size);
    if (size == 0) {
      return make_entry(0, way, length);
    }
  }
  const auto value = static_cast<int32_t>(bits << length >> (64 - size));
  return make_entry(extend(value, static_cast<int32_t>(size)), way, length + size);
}

}  // namespace fastssl::jpeg
