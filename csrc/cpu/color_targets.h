// The target of a pixel: the K nearest bins of its colour and what each counts.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "layout.h"

// Last, as it says itself.
#include "cpu/lanes.h"

namespace fastssl {
namespace {

struct Target {
  int32_t* bins;  // at most K, with room for one more
  float* shares;  // as many, their sum is 1
  int64_t num;
  float weight;  // of the nearest bin
};

// The bins among which the nearest are sought, in ascending order.
struct Candidates {
  const int16_t* bins;
  int64_t num;
};

// Candidates that are looked at all together, in vectors.
constexpr int64_t kFew = 64;
constexpr int64_t kGroup = 16;
constexpr int32_t kNone = std::numeric_limits<int32_t>::max() - 1;  // 1 can be added to it

// Finds the target among a few candidates without a branch that depends on the colour. Squares of
// distances are compared by their bits: as integers they have the same order, and GCC makes
// vectors of the least integer but not of the least float.
FASTSSL_INLINE void find_among_few_body(const ColorCode& code, const Candidates& candidates,
                                        float a, float b, Target& target) {
  const int64_t num = candidates.num, padded = (num + kGroup - 1) / kGroup * kGroup;
  int32_t keys[kFew], ranks[kFew];
  float shares[kFew];
  for (int64_t i = 0; i < num; ++i) {
    const float* bin = code.bins + 2 * candidates.bins[i];
    const float da = a - bin[0], db = b - bin[1];
    keys[i] = __builtin_bit_cast(int32_t, da* da + db * db);
  }
  for (int64_t i = num; i < padded; ++i) {
    keys[i] = kNone;
  }
  int32_t least = kNone;
  for (int64_t i = 0; i < padded; ++i) {
    least = keys[i] < least ? keys[i] : least;
  }
  int32_t nearest = static_cast<int32_t>(kFew);
  for (int64_t i = 0; i < padded; ++i) {
    const int32_t place = keys[i] == least ? static_cast<int32_t>(i) : static_cast<int32_t>(kFew);
    nearest = place < nearest ? place : nearest;
  }
  target.weight = code.weights ? code.weights[candidates.bins[nearest]] : 1.0f;
  if (code.num_neighbors == 1) {
    target.bins[0] = candidates.bins[nearest];
    target.shares[0] = 1.0f;
    target.num = 1;
    return;
  }
  // How many come before each: nearer ones, and of those as near the ones of lower number.
  for (int64_t i = 0; i < padded; ++i) {
    ranks[i] = 0;
  }
  if (num > code.num_neighbors) {
    for (int64_t k = 0; k < num; ++k) {
      const int32_t key = keys[k], place = static_cast<int32_t>(k);
      for (int64_t i = 0; i < padded; ++i) {
        ranks[i] += key < keys[i] + (place < static_cast<int32_t>(i));
      }
    }
  }
  const float least_square = __builtin_bit_cast(float, least);
  const float limit = least_square + kLeastLogShare / code.scale;
  const auto wanted = static_cast<int32_t>(code.num_neighbors);
  for (int64_t i = 0; i < padded; ++i) {
    const float square = __builtin_bit_cast(float, keys[i]);
    const float share = fast_exp((square - least_square) * code.scale);
    shares[i] = (ranks[i] < wanted) & (square <= limit) ? share : 0.0f;
  }
  float sum = 0.0f;
  int64_t found = 0;
  for (int64_t i = 0; i < num; ++i) {
    sum += shares[i];
    target.bins[found] = candidates.bins[i];
    target.shares[found] = shares[i];
    found += shares[i] > 0.0f;
  }
  target.num = found;
  const float scale = 1.0f / sum;
  for (int64_t k = 0; k < found; ++k) {
    target.shares[k] *= scale;
  }
}

FASTSSL_KERNEL(find_among_few,
               (const ColorCode& code, const Candidates& candidates, float a, float b,
                Target& target),
               (code, candidates, a, b, target))

// Finds targets, one at a time.
class TargetFinder {
 public:
  explicit TargetFinder(const ColorCode& code)
      : code_(code),
        distances_(code.num_bins),
        sorted_(code.num_bins),
        kept_(code.num_bins),
        all_(code.num_bins) {
    for (int64_t bin = 0; bin < code.num_bins; ++bin) {
      all_[bin] = static_cast<int16_t>(bin);
    }
  }

  // Ties go to the bin of lower number.
  void find(float a, float b, Target& target) {
    if (!std::isfinite(a) || !std::isfinite(b)) {
      target.bins[0] = 0;
      target.shares[0] = std::numeric_limits<float>::quiet_NaN();
      target.num = 1;
      target.weight = 1.0f;
      return;
    }
    const Candidates candidates = list_candidates(a, b);
    if (candidates.num <= kFew) {
      find_among_few(code_, candidates, a, b, target);
    } else {
      find_among_many(candidates, a, b, target);
    }
  }

 private:
  Candidates list_candidates(float a, float b) const {
    constexpr float kHalfPlane = 0.5f * kCellSide * kCells;
    const float row = (a + kHalfPlane) / kCellSide, column = (b + kHalfPlane) / kCellSide;
    if (!(row >= 0 && row < kCells && column >= 0 && column < kCells)) {
      return {all_.data(), code_.num_bins};
    }
    const int64_t cell = static_cast<int64_t>(row) * kCells + static_cast<int64_t>(column);
    const int32_t begin = code_.offsets[cell];
    return {code_.candidates + begin, code_.offsets[cell + 1] - begin};
  }

  void find_among_many(const Candidates& candidates, float a, float b, Target& target) {
    float least = std::numeric_limits<float>::infinity();
    int16_t nearest = 0;
    for (int64_t i = 0; i < candidates.num; ++i) {
      const float* bin = code_.bins + 2 * candidates.bins[i];
      const float da = a - bin[0], db = b - bin[1];
      distances_[i] = da * da + db * db;
      nearest = distances_[i] < least ? candidates.bins[i] : nearest;
      least = distances_[i] < least ? distances_[i] : least;
    }
    target.weight = code_.weights ? code_.weights[nearest] : 1.0f;
    select(keep_near(candidates, least + kLeastLogShare / code_.scale), target);
    weigh(least, target);
  }

  // Moves what is not too far to the front and returns how many that are.
  int64_t keep_near(const Candidates& candidates, float limit) {
    int64_t found = 0;
    for (int64_t i = 0; i < candidates.num; ++i) {
      kept_[found] = candidates.bins[i];
      distances_[found] = distances_[i];
      found += distances_[found] <= limit;
    }
    return found;
  }

  // Keeps the K nearest, in the order of their numbers; `shares` holds squared distances for now.
  void select(int64_t num, Target& target) {
    const int64_t wanted = std::min(num, code_.num_neighbors);
    std::copy_n(distances_.begin(), num, sorted_.begin());
    const auto last = sorted_.begin() + wanted - 1;
    std::nth_element(sorted_.begin(), last, sorted_.begin() + num);
    // How many of those that are as near as the last one are kept.
    int64_t ties = std::count(sorted_.begin(), last + 1, *last);
    target.num = 0;
    for (int64_t i = 0; target.num < wanted; ++i) {
      const bool is_tie = distances_[i] == *last;
      if (distances_[i] < *last || (is_tie && ties > 0)) {
        ties -= is_tie;
        target.bins[target.num] = kept_[i];
        target.shares[target.num++] = distances_[i];
      }
    }
  }

  void weigh(float least, const Target& target) const {
    float sum = 0.0f;
    for (int64_t k = 0; k < target.num; ++k) {
      target.shares[k] = fast_exp((target.shares[k] - least) * code_.scale);
      sum += target.shares[k];
    }
    const float scale = 1.0f / sum;
    for (int64_t k = 0; k < target.num; ++k) {
      target.shares[k] *= scale;
    }
  }

  const ColorCode& code_;
  std::vector<float> distances_, sorted_;
  std::vector<int32_t> kept_;
  std::vector<int16_t> all_;
};

}  // namespace
}  // namespace fastssl
