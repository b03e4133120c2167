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

uint32_t make_entry(int32_t value, uint32_t run, uint32_t low) {
  return static_cast<uint32_t>(value) << 16 | run << 8 | low;
}

// The entry of a prefix whose first `length` bits are the code of a symbol.
uint32_t make_fast_entry(uint8_t symbol, uint32_t length, uint32_t prefix, bool is_dc) {
  const int32_t size = is_dc ? symbol : symbol & 15;
  const uint32_t run = is_dc ? 0 : symbol >> 4;
  if (size == 0) {
    const bool is_end = !is_dc && run != 15;
    return make_entry(0, is_end ? HuffmanTable::kEndRun : run, length);
  }
  const int32_t rest = HuffmanTable::kFastBits - static_cast<int32_t>(length) - size;
  if (rest < 0) {
    return make_entry(size, run, HuffmanTable::kMore | length);
  }
  const int32_t bits = prefix >> rest & ((1u << size) - 1);
  return make_entry(extend(bits, size), run, length + static_cast<uint32_t>(size));
}

}  // namespace

// clang-format off
const uint8_t kZigzag[64 + 192] = {
     0,  1,  8, 16,  9,  2,  3, 10, 17, 24, 32, 25, 18, 11,  4,  5,
    12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13,  6,  7, 14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51,
    58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
#define FASTSSL_SIXTEEN 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64
    FASTSSL_SIXTEEN, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN,
    FASTSSL_SIXTEEN, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN,
    FASTSSL_SIXTEEN, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN, FASTSSL_SIXTEEN,
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
        const uint32_t num = 1u << (kFastBits - length);
        for (uint32_t prefix = code * num; prefix < (code + 1) * num; ++prefix) {
          fast[prefix] = make_fast_entry(symbols[index], length, prefix, dc);
        }
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
  uint32_t size = entry >> 16;
  uint32_t run = entry >> 8 & 0xFF;
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
    run = table.is_dc ? 0 : symbol >> 4;
    if (size == 0) {
      const bool is_end = !table.is_dc && run != 15;
      return make_entry(0, is_end ? HuffmanTable::kEndRun : run, length);
    }
  }
  const auto value = static_cast<int32_t>(bits << length >> (64 - size));
  return make_entry(extend(value, static_cast<int32_t>(size)), run, length + size);
}

}  // namespace fastssl::jpeg
