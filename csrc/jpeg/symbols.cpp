#include "jpeg/symbols.h"

#include <algorithm>
#include <array>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastssl::jpeg {
namespace {

constexpr int kBlock = 64, kMaxCodeBits = 16;
constexpr int kMaxDcBits = 11, kMaxAcBits = 10;
constexpr int kZeroRun = 0xF0;  // Sixteen zeros.

// The order of coefficients in a scan is the diagonals of the block, up and down by turns.
constexpr std::array<uint8_t, kBlock> make_zigzag_places() {
  std::array<uint8_t, kBlock> places{};
  int place = 0;
  for (int sum = 0; sum < 15; ++sum) {
    for (int i = 0; i <= sum; ++i) {
      const int row = sum % 2 == 0 ? sum - i : i, column = sum - row;
      if (row < 8 && column < 8) places[row * 8 + column] = static_cast<uint8_t>(place++);
    }
  }
  return places;
}

constexpr std::array<uint8_t, kBlock> kPlace = make_zigzag_places();

struct Zigzag {
  uint8_t natural[kBlock];
  // Of a row of eight coefficients, by which of them are not 0: the same as bits of the zigzag.
  uint64_t bits_of_row[8][256];

  constexpr Zigzag() : natural(), bits_of_row() {
    for (int i = 0; i < kBlock; ++i) natural[kPlace[i]] = static_cast<uint8_t>(i);
    for (int row = 0; row < 8; ++row) {
      for (int mask = 0; mask < 256; ++mask) {
        for (int column = 0; column < 8; ++column) {
          if (mask >> column & 1) bits_of_row[row][mask] |= uint64_t{1} << kPlace[row * 8 + column];
        }
      }
    }
  }
};

constexpr Zigzag kZigzagOrder;

// Which of eight coefficients are not 0, the first one as the lowest bit.
inline int find_nonzero(const int16_t* row) {
#if defined(__SSE2__)
  const __m128i values = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row));
  const __m128i zeros = _mm_cmpeq_epi16(values, _mm_setzero_si128());
  return ~_mm_movemask_epi8(_mm_packs_epi16(zeros, _mm_setzero_si128())) & 0xFF;
#else
  int mask = 0;
  for (int i = 0; i < 8; ++i) mask |= (row[i] != 0) << i;
  return mask;
#endif
}

inline uint32_t find_size(int32_t value) {
  return value < 0 ? 0u - static_cast<uint32_t>(value) : static_cast<uint32_t>(value);
}

// Bits of a number, 0 for 0.
inline int count_bits(uint32_t size) { return size == 0 ? 0 : 32 - __builtin_clz(size); }

// ---- codes --------------------------------------------------------------------------------------

struct Leaf {
  uint64_t count;
  int32_t symbol;  // -1: the code of ones alone, which must not be used. The longest one.
};

// Finds the best code lengths up to kMaxCodeBits by package-merge (Larmore and Hirschberg 1990).
// Level by level, what the level before holds is joined two by two and merged with the leaves; of
// the last level the first 2 num - 2 items are taken, and what they were joined of. A leaf's length
// is the number of levels where it was taken.
//
// leaves: num, 2..257, in rising order of counts.
// lengths: num.
void find_lengths(const Leaf* leaves, int num, int* lengths) {
  constexpr int kMaxItems = 2 * 257;
  bool is_leaf[kMaxCodeBits][kMaxItems];
  uint64_t before[kMaxItems], weight[kMaxItems];
  int size = 0;
  for (int level = 0; level < kMaxCodeBits; ++level) {
    const int packages = size / 2;
    int leaf = 0, package = 0;
    for (size = 0; size < num + packages; ++size) {
      const uint64_t joined =
          package < packages ? before[2 * package] + before[2 * package + 1] : UINT64_MAX;
      const bool takes_leaf = leaf < num && leaves[leaf].count <= joined;
      is_leaf[level][size] = takes_leaf;
      weight[size] = takes_leaf ? leaves[leaf].count : joined;
      takes_leaf ? ++leaf : ++package;
    }
    std::copy(weight, weight + size, before);
  }
  std::fill(lengths, lengths + num, 0);
  int taken = 2 * num - 2;
  for (int level = kMaxCodeBits - 1; level >= 0; --level) {
    const auto of_leaves =
        static_cast<int>(std::count(is_leaf[level], is_leaf[level] + taken, true));
    for (int i = 0; i < of_leaves; ++i) ++lengths[i];
    taken = 2 * (taken - of_leaves);
  }
}

}  // namespace

bool count_block(const int16_t* block, int32_t last_dc, SymbolCounts* dc, SymbolCounts* ac) {
  const int dc_bits = count_bits(find_size(block[0] - last_dc));
  if (dc_bits > kMaxDcBits) return false;
  ++dc->of[dc_bits];
  uint64_t left = 0;
  for (int row = 0; row < 8; ++row) {
    left |= kZigzagOrder.bits_of_row[row][find_nonzero(block + 8 * row)];
  }
  left &= ~uint64_t{1};
  // What all symbols would write to is kept out of memory: a chain of stores and loads is slow.
  int last = 0;
  uint32_t zero_runs = 0, all_sizes = 0;
  for (; left != 0; left &= left - 1) {
    const int place = __builtin_ctzll(left);
    const uint32_t size = find_size(block[kZigzagOrder.natural[place]]);
    const int zeros = place - last - 1;
    all_sizes |= size;
    zero_runs += static_cast<uint32_t>(zeros >> 4);
    // Masked: a size of 16 bits, which is refused below, would lead outside.
    ++ac->of[(((zeros & 15) << 4) + 32 - __builtin_clz(size)) & 0xFF];
    last = place;
  }
  if (zero_runs != 0) ac->of[kZeroRun] += zero_runs;
  if (last != kBlock - 1) ++ac->of[0];
  return all_sizes < 1u << kMaxAcBits;
}

void build_code(const SymbolCounts& counts, HuffmanCode* out) {
  Leaf leaves[257];
  int num = 0;
  leaves[num++] = {0, -1};
  for (int symbol = 0; symbol < 256; ++symbol) {
    if (counts.of[symbol] != 0) leaves[num++] = {counts.of[symbol], symbol};
  }
  std::sort(leaves, leaves + num, [](const Leaf& a, const Leaf& b) {
    return a.count != b.count ? a.count < b.count : a.symbol > b.symbol;
  });
  int lengths[257];
  find_lengths(leaves, num, lengths);
  std::memset(out, 0, sizeof *out);
  // Of one length the lower symbol first: measured against the more frequent first, a fifteenth
  // less stuffing.
  int length_of[256] = {};
  for (int i = 1; i < num; ++i) length_of[leaves[i].symbol] = lengths[i];
  uint8_t* next = out->symbols;
  for (int length = 1; length <= kMaxCodeBits; ++length) {
    for (int symbol = 0; symbol < 256; ++symbol) {
      if (length_of[symbol] != length) continue;
      ++out->num_of_length[length];
      *next++ = static_cast<uint8_t>(symbol);
    }
  }
}

}  // namespace fastssl::jpeg
