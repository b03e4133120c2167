#include "jpeg/entropy.h"

#include <cstring>

namespace fastssl::jpeg {
namespace {

#if defined(__GNUC__)
#define FASTSSL_INLINE inline __attribute__((always_inline))
#else
#define FASTSSL_INLINE inline
#endif

FASTSSL_INLINE bool is_rare(bool condition) { return __builtin_expect(condition, 0); }

// Afterwards there are at least 56 bits: two symbols.
FASTSSL_INLINE void refill(Stream* s) {
  uint64_t next;
  std::memcpy(&next, s->at, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
  next = __builtin_bswap64(next);
#endif
  s->bits |= next >> (s->count & 63);
  s->at += ~s->count >> 3 & 7;
  s->count |= 56;
}

FASTSSL_INLINE uint32_t look_up(const HuffmanTable* table, const Stream& s) {
  return table->fast[s.bits >> (64 - HuffmanTable::kFastBits)];
}

// Takes a symbol whose entry has been looked up: at most 27 bits of DC, 26 of AC.
template <bool kRefills>
FASTSSL_INLINE void take(Stream* s, const HuffmanTable* table, uint32_t entry) {
  if (is_rare((entry & HuffmanTable::kMore) != 0)) entry = complete(*table, entry, s->bits);
  s->bits <<= entry & 63;
  s->count -= entry;
  if (kRefills) refill(s);
  s->k += entry >> 24;
  s->block->coefficients[kPlaces[s->k]] = static_cast<int16_t>(entry >> 8);
}

// Takes a block's DC; returns the entry of the symbol behind it.
FASTSSL_INLINE uint32_t begin_block(Stream* s) {
  s->k = 0;
  take<true>(s, s->block->dc, look_up(s->block->dc, *s));
  s->ac = s->block->ac;
  return look_up(s->ac, *s);
}

FASTSSL_INLINE uint32_t first_entry(Stream* s) {
  refill(s);
  return s->k == 0 ? begin_block(s) : look_up(s->ac, *s);
}

// Takes a symbol of AC and looks up the one behind it; false behind the last block.
template <bool kRefills>
FASTSSL_INLINE bool next_symbol(Stream* s, uint32_t* entry) {
  take<kRefills>(s, s->ac, *entry);
  if (is_rare(s->k > 63)) {
    s->block->end = static_cast<int16_t>(s->k);
    if (++s->block == s->last) return false;
    if (!kRefills) refill(s);
    *entry = begin_block(s);
  } else {
    *entry = look_up(s->ac, *s);
  }
  return true;
}

}  // namespace

void Stream::begin(const uint8_t* bytes, size_t size, int skipped) {
  bits = uint64_t{bytes[0]} << (56 + skipped);
  count = static_cast<uint64_t>(8 - skipped);
  at = bytes + 1;
  end = bytes + size;
}

void decode_one(Stream* a) {
  Stream s = *a;
  uint32_t entry = first_entry(&s);
  while (next_symbol<false>(&s, &entry) && next_symbol<true>(&s, &entry)) {
  }
  *a = s;
}

void decode_two(Stream* a, Stream* b) {
  Stream s = *a, t = *b;
  uint32_t entry_s = first_entry(&s), entry_t = first_entry(&t);
  while (next_symbol<false>(&s, &entry_s) && next_symbol<false>(&t, &entry_t) &&
         next_symbol<true>(&s, &entry_s) && next_symbol<true>(&t, &entry_t)) {
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
  return static_cast<size_t>(to - out);
}

}  // namespace fastssl::jpeg
