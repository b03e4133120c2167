// Runs a fuzz target without a fuzzer, on files and on what becomes of them when they are damaged:
// cut anywhere, bits flipped, restart counts and sizes that lie. For compilers without libFuzzer.
//
//   replay MUTATIONS FILE...
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>

#include "jpeg/fuzz/target.h"

namespace {

using Bytes = std::vector<uint8_t>;

uint64_t num_runs = 0;

void run(const Bytes& bytes) {
  // On the heap and of the exact size, so that a byte too far is found.
  std::unique_ptr<uint8_t[]> copy(new uint8_t[bytes.size()]);
  if (!bytes.empty()) std::memcpy(copy.get(), bytes.data(), bytes.size());
  LLVMFuzzerTestOneInput(copy.get(), bytes.size());
  ++num_runs;
}

// Cut at every byte; then with an end marker, which makes decoders go on to the last bit.
void run_truncations(const Bytes& whole) {
  for (size_t size = 0; size < whole.size(); ++size) {
    Bytes cut(whole.begin(), whole.begin() + static_cast<ptrdiff_t>(size));
    run(cut);
    cut.push_back(0xFF);
    cut.push_back(0xD9);
    run(cut);
  }
}

class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  Bytes damage(const Bytes& whole) {
    Bytes bytes = whole;
    const int times = 1 + draw(4);
    for (int i = 0; i < times && bytes.size() > 4; ++i) damage_once(&bytes);
    return bytes;
  }

 private:
  int draw(size_t below) { return static_cast<int>(random_() % below); }

  // The place of a marker whose second byte lies in low .. high, or -1.
  ptrdiff_t find(const Bytes& bytes, int low, int high) {
    const size_t start = static_cast<size_t>(draw(bytes.size()));
    for (size_t i = 0; i + 4 < bytes.size(); ++i) {
      const size_t at = (start + i) % (bytes.size() - 4);
      if (bytes[at] == 0xFF && bytes[at + 1] >= low && bytes[at + 1] <= high) {
        return static_cast<ptrdiff_t>(at);
      }
    }
    return -1;
  }

  void damage_once(Bytes* bytes) {
    Bytes& b = *bytes;
    ptrdiff_t at = draw(b.size());
    switch (draw(8)) {
      case 0:
        b[at] ^= static_cast<uint8_t>(1 << draw(8));
        return;
      case 1:
        b[at] = static_cast<uint8_t>(draw(256));
        return;
      case 2:  // Another restart number, or no restart at all.
        if ((at = find(b, 0xD0, 0xD7)) >= 0) b[at + 1] = static_cast<uint8_t>(0xCF + draw(11));
        return;
      case 3:  // A restart marker is lost.
        if ((at = find(b, 0xD0, 0xD7)) >= 0) b.erase(b.begin() + at, b.begin() + at + 2);
        return;
      case 4:  // Another restart interval.
        at = find(b, 0xDD, 0xDD);
        if (at >= 0 && static_cast<size_t>(at) + 5 < b.size()) {
          b[at + 4] = draw(2) ? 0 : static_cast<uint8_t>(draw(256));
          b[at + 5] = static_cast<uint8_t>(draw(256));
        }
        return;
      case 5:  // Another size, precision or sampling.
        at = find(b, 0xC0, 0xC2);
        if (at >= 0 && static_cast<size_t>(at) + 19 < b.size()) {
          b[at + 2 + draw(17)] = static_cast<uint8_t>(draw(2) ? draw(256) : draw(5));
        }
        return;
      case 6: {  // Bytes are lost.
        const ptrdiff_t end =
            std::min<ptrdiff_t>(at + 1 + draw(64), static_cast<ptrdiff_t>(b.size()));
        b.erase(b.begin() + at, b.begin() + end);
        return;
      }
      default: {  // Bytes come twice.
        const ptrdiff_t end =
            std::min<ptrdiff_t>(at + 1 + draw(64), static_cast<ptrdiff_t>(b.size()));
        const Bytes part(b.begin() + at, b.begin() + end);
        b.insert(b.begin() + at, part.begin(), part.end());
      }
    }
  }

  std::mt19937 random_;
};

}  // namespace

int main(int argc, char** argv) {
  const int mutations = argc > 1 ? std::atoi(argv[1]) : 0;
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const Bytes whole((std::istreambuf_iterator<char>(file)), {});
    if (whole.empty()) {
      std::fprintf(stderr, "error: %s is empty or cannot be read\n", argv[i]);
      return 2;
    }
    run(whole);
    run_truncations(whole);
    Mutator mutator(static_cast<uint32_t>(i));
    for (int k = 0; k < mutations; ++k) run(mutator.damage(whole));
  }
  std::printf("%llu runs, no finding\n", static_cast<unsigned long long>(num_runs));
  return 0;
}
