#include "jpeg/entropy.h"

#include <cstring>

namespace fastssl::jpeg {
namespace {

#if defined(__GNUC__)
#define FASTSSL_INLINE inline __attribute__((always_inline))
#else
#define FASTSSL_INLINE inline
#endif

FASTSSL_INLINE void refill(Stream* s) {
  uint64_t next;
  std::memcpy(&next, s->at, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  next = __builtin_bswap64(next);
#endif
  s->bits |= next >> s->count;
  s->at += (63 - s->count) >> 3;
  s->at = s->at < s->limit ? s->at : s->limit;
  s->count |= 56;
}

// One symbol: at most 27 bits.
FASTSSL_INLINE void next_symbol(Stream* s) {
  uint32_t entry = s->next->fast[s->bits >> (64 - HuffmanTable::kFastBits)];
  if (__builtin_expect((entry & HuffmanTable::kMore) != 0, 0)) {
    entry = complete(*s->next, entry, s->bits);
  }
  s->bits <<= entry & 0x3F;
  s->count -= entry & 0x3F;
  s->k += entry >> 8 & 0xFF;
  s->block[kZigzag[s->k & 0xFF]] = static_cast<int16_t>(entry >> 16);
  ++s->k;
  s->block[kEnd] = static_cast<int16_t>(s->k);
  const Step* step = s->step;
  const bool is_done = s->k >= 64;
  s->next = is_done ? step->next_dc : step->ac;
  s->step = is_done ? step->next : step;
  s->block += is_done ? kBlockStride : 0;
  s->k = is_done ? 0 : s->k;
}

}  // namespace

void Stream::begin(const uint8_t* bytes, size_t size, const Step* first, const HuffmanTable* dc) {
  bits = 0;
  count = 0;
  at = bytes;
  limit = bytes + size + 8;
  next = dc;
  step = first;
  k = 0;
}

void decode_one(Stream* a) {
  Stream s = *a;
  while (s.block != s.last) {
    refill(&s);
    next_symbol(&s);
  }
  *a = s;
}

void decode_two(Stream* a, Stream* b) {
  Stream s = *a, t = *b;
  while (s.block != s.last && t.block != t.last) {
    refill(&s);
    refill(&t);
    next_symbol(&s);
    next_symbol(&t);
  }
  *a = s;
  *b = t;
}

size_t unstuff(const uint8_t* data, size_t size, uint8_t* out) {
  const uint8_t* const end = data + size;
  uint8_t* to = out;
  while (data < end) {
    const void* found = std::memchr(data, 0xFF, static_cast<size_t>(end - data));
    const auto* stop = found != nullptr ? static_cast<const uint8_t*>(found) : end;
    const auto length = static_cast<size_t>(stop - data);
    std::memcpy(to, data, length);
    to += length;
    if (end - stop < 2 || stop[1] != 0) {
      break;
    }
    *to++ = 0xFF;
    data = stop + 2;
  }
  std::memset(to, 0, Stream::kPadding);
  return static_cast<size_t>(to - out);
}

}  // namespace fastssl::jpeg
