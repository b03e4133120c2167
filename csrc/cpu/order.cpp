// The sample order in closed form: what fastssl/sampling.py computes in NumPy, on all threads.
//
// A keyed bijection on 0..n-1 is a Feistel network on the smallest rectangle a x b that holds n,
// walked until the value falls below n (Black and Rogaway 2002).

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <vector>

namespace {

using std::int64_t;
using std::uint64_t;

constexpr uint64_t kGolden = 0x9E3779B97F4A7C15ULL;
constexpr uint64_t kMix1 = 0xBF58476D1CE4E5B9ULL;
constexpr uint64_t kMix2 = 0x94D049BB133111EBULL;
constexpr int64_t kSmallDomain = 4096;
constexpr int kRounds = 8;
constexpr int kRoundsSmall = 24;
constexpr int64_t kGrain = 16384;
constexpr int64_t kMemoFrom = 4096;

// The finaliser of SplitMix64.
inline uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * kMix1;
  x = (x ^ (x >> 27)) * kMix2;
  return x ^ (x >> 31);
}

class Bijection {
 public:
  explicit Bijection(int64_t count) : count_(count) {
    a_ = static_cast<int64_t>(std::sqrt(static_cast<double>(count - 1)));
    while (a_ * a_ > count - 1) --a_;
    while ((a_ + 1) * (a_ + 1) <= count - 1) ++a_;
    a_ += 1;
    b_ = (count + a_ - 1) / a_;
    rounds_ = count >= kSmallDomain ? kRounds : kRoundsSmall;
  }

  int64_t forward(int64_t value, uint64_t key) const {
    do {
      int64_t left = value / b_, right = value % b_;
      for (int r = 0; r < rounds_; r += 2) {
        left += shift(right, r, key, a_);
        if (left >= a_) left -= a_;
        right += shift(left, r + 1, key, b_);
        if (right >= b_) right -= b_;
      }
      value = left * b_ + right;
    } while (value >= count_);
    return value;
  }

  int64_t inverse(int64_t value, uint64_t key) const {
    do {
      int64_t left = value / b_, right = value % b_;
      for (int r = rounds_ - 2; r >= 0; r -= 2) {
        right -= shift(left, r + 1, key, b_);
        if (right < 0) right += b_;
        left -= shift(right, r, key, a_);
        if (left < 0) left += a_;
      }
      value = left * b_ + right;
    } while (value >= count_);
    return value;
  }

 private:
  static int64_t shift(int64_t half, int number, uint64_t key, int64_t bound) {
    const uint64_t mixed =
        mix(static_cast<uint64_t>(half) + key + static_cast<uint64_t>(number + 1) * kGolden);
    return static_cast<int64_t>(((mixed >> 32) * static_cast<uint64_t>(bound)) >> 32);
  }

  int64_t count_, a_, b_;
  int rounds_;
};

// The chunks that were looked up last. A long stretch of places asks for some twenty of each lane's
// window again and again; finding one anew is a third of an id's time.
class ChunkMemo {
 public:
  ChunkMemo() : entries_(int64_t{1} << kBits) {}

  int64_t find(const Bijection& chunks, int64_t slot, uint64_t key) {
    Entry& entry = entries_[static_cast<uint64_t>(slot) * kGolden >> (64 - kBits)];
    if (entry.slot != slot) entry = {slot, chunks.forward(slot, key)};
    return entry.chunk;
  }

 private:
  static constexpr int kBits = 12;
  struct Entry {
    int64_t slot = -1, chunk = -1;
  };
  std::vector<Entry> entries_;
};

struct ChunkedOrder {
  ChunkedOrder(int64_t num_samples, uint64_t order_key, uint64_t window_key, int64_t chunk_size,
               int64_t num_lanes, int64_t window_chunks)
      : chunks((num_samples + chunk_size - 1) / chunk_size),
        full_window(std::min(window_chunks * chunk_size, num_samples)),
        order_key(order_key),
        window_key(window_key),
        chunk_size(chunk_size),
        num_lanes(num_lanes),
        window(window_chunks * chunk_size),
        share(num_samples / num_lanes),
        rest(num_samples % num_lanes) {
    const int64_t num_chunks = (num_samples + chunk_size - 1) / chunk_size;
    gap = num_chunks * chunk_size - num_samples;
    behind = (chunks.inverse(num_chunks - 1, order_key) + 1) * chunk_size - gap;
  }

  // memo: of the calling thread; null where it would cost more than it saves.
  int64_t id(int64_t place, ChunkMemo* memo) const {
    const int64_t lane = place % num_lanes, step = place / num_lanes;
    const int64_t lane_start = lane * share + std::min(lane, rest);
    const int64_t lane_length = share + (lane < rest ? 1 : 0);
    const int64_t number = step / window, start = number * window;
    const int64_t length = std::min(window, lane_length - start);
    const uint64_t key = mix(window_key + static_cast<uint64_t>(lane) * kMix1 +
                             static_cast<uint64_t>(number) * kMix2);
    const int64_t mixed = length == window ? full_window.forward(step - start, key)
                                           : Bijection(length).forward(step - start, key);
    int64_t sequence = lane_start + start + mixed;
    if (sequence >= behind) sequence += gap;
    const int64_t slot = sequence / chunk_size;
    const int64_t chunk =
        memo != nullptr ? memo->find(chunks, slot, order_key) : chunks.forward(slot, order_key);
    return chunk * chunk_size + (sequence - slot * chunk_size);
  }

  Bijection chunks, full_window;
  uint64_t order_key, window_key;
  int64_t chunk_size, num_lanes, window, share, rest, gap = 0, behind = 0;
};

at::Tensor order_ids(const at::Tensor& places, int64_t num_samples, int64_t order_key,
                     int64_t window_key, int64_t chunk_size, int64_t num_lanes,
                     int64_t window_chunks) {
  TORCH_CHECK(places.scalar_type() == at::kLong && places.is_contiguous(),
              "places must be a contiguous int64 tensor, got ", places.scalar_type());
  TORCH_CHECK(num_samples >= 1, "num_samples must be at least 1, got ", num_samples);
  TORCH_CHECK(chunk_size >= 0 && num_lanes >= 1 && window_chunks >= 1,
              "chunk_size, num_lanes and window_chunks must be positive, got ", chunk_size, ", ",
              num_lanes, ", ", window_chunks);
  at::Tensor ids = at::empty_like(places);
  const int64_t* in = places.const_data_ptr<int64_t>();
  int64_t* out = ids.mutable_data_ptr<int64_t>();
  const auto key = static_cast<uint64_t>(order_key);
  const int64_t count = places.numel();
  for (int64_t i = 0; i < count; ++i) {
    TORCH_CHECK(in[i] >= 0 && in[i] < num_samples, "places must lie in 0 .. ", num_samples - 1,
                ", got ", in[i]);
  }
  if (chunk_size == 0) {
    const Bijection samples(num_samples);
    at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) out[i] = samples.forward(in[i], key);
    });
  } else {
    const ChunkedOrder chunked(num_samples, key, static_cast<uint64_t>(window_key), chunk_size,
                               num_lanes, window_chunks);
    at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
      std::optional<ChunkMemo> memo;
      if (end - begin >= kMemoFrom) memo.emplace();
      for (int64_t i = begin; i < end; ++i) out[i] = chunked.id(in[i], memo ? &*memo : nullptr);
    });
  }
  return ids;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(fastssl, m) {
  m.def(
      "order_ids(Tensor places, int num_samples, int order_key, int window_key, int chunk_size, "
      "int num_lanes, int window_chunks) -> Tensor");
}

TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("order_ids", &order_ids); }
