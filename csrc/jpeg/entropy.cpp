#include "jpeg/entropy.h"

#include <cstring>

namespace fastssl::jpeg {
namespace {

#if defined(__GNUC__)
#define FASTSSL_INLINE inline __attribute__((always_inline))
#else
#define FASTSSL_INLINE inline
#endif

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

// Where k has left the block, goes on to the next one; the entry of the next symbol is `after`
// then.
FASTSSL_INLINE void move_on(Stream* s, uint32_t after, uint32_t* entry) {
#if defined(__x86_64__) && defined(__GNUC__)
  // Compilers make a branch of conditional expressions here.
  asm("cmpq $63, %[k]\n\tcmoval %[after], %[entry]\n\tcmovaq %[next_dc], %[next]\n\t"
      "cmovaq %[zero], %[k]\n\tcmovaq %[behind], %[block]"
      : [k] "+r"(s->k), [entry] "+r"(*entry), [next] "+r"(s->next), [block] "+r"(s->block)
      : [after] "r"(after), [next_dc] "m"(s->block->next_dc), [behind] "r"(s->block + 1),
        [zero] "r"(uint64_t{0})
      : "cc");
#else
  const bool is_done = s->k > 63;
  *entry = is_done ? after : *entry;
  s->next = is_done ? s->block->next_dc : s->next;
  s->block += is_done;
  s->k = is_done ? 0 : s->k;
#endif
}

// Takes a symbol, whose entry has been looked up, and looks up the next one: at most 27 bits for
// DC, 26 for AC. Both tables that may be the next are read before it is known which.
template <bool kRefills>
FASTSSL_INLINE void next_symbol(Stream* s, uint32_t* entry) {
  uint32_t now = *entry;
  if (__builtin_expect((now & HuffmanTable::kMore) != 0, 0)) {
    now = complete(*s->next, now, s->bits);
  }
  s->bits <<= now & 63;
  s->count -= now;
  if (kRefills) {
    refill(s);
  }
  s->k += now >> 24;
  s->block->coefficients[kPlaces[s->k]] = static_cast<int16_t>(now >> 8);
  s->block->end = static_cast<int16_t>(s->k);
  s->next = s->block->ac;
  *entry = look_up(s->next, *s);
  move_on(s, look_up(s->block->next_dc, *s), entry);
}

FASTSSL_INLINE uint32_t first_entry(Stream* s) {
  refill(s);
  return look_up(s->next, *s);
}

}  // namespace

void Stream::begin(const uint8_t* bytes, size_t size, int skipped) {
  bits = uint64_t{bytes[0]} << (56 + skipped);
  count = static_cast<uint64_t>(8 - skipped);
  at = bytes + 1;
  end = bytes + size;
}

void build_stop(HuffmanTable* table) {
  for (uint32_t& entry : table->fast) {
    entry = HuffmanTable::kNoCode << 24;
  }
}

void decode_one(Stream* a) {
  Stream s = *a;
  uint32_t entry = first_entry(&s);
  while (s.block < s.last) {
    next_symbol<false>(&s, &entry);
    next_symbol<true>(&s, &entry);
  }
  *a = s;
}

void decode_two(Stream* a, Stream* b) {
  Stream s = *a, t = *b;
  uint32_t entry_s = first_entry(&s), entry_t = first_entry(&t);
  while (s.block < s.last && t.block < t.last) {
    next_symbol<false>(&s, &entry_s);
    next_symbol<false>(&t, &entry_t);
    next_symbol<true>(&s, &entry_s);
    next_symbol<true>(&t, &entry_t);
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
