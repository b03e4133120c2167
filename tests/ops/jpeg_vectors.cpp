// Plain code and all vector code that this machine runs side by side: random blocks, rows and
// pictures.
// Prints what differs and exits with 1.
#include <cstdio>
#include <cstring>
#include <random>
#include <vector>

#include "jpeg/color.h"
#include "jpeg/idct.h"
#include "jpeg/resample.h"

using namespace fastssl::jpeg;

namespace {

std::mt19937 random_bits(0);

int draw(int low, int high) {
  return low + static_cast<int>(random_bits() % static_cast<uint32_t>(high - low + 1));
}

std::vector<uint8_t> draw_bytes(size_t size) {
  std::vector<uint8_t> bytes(size);
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random_bits());
  return bytes;
}

// From quiet blocks to such as overflow everywhere; some with nothing below the first row.
void draw_block(int16_t* block) {
  std::memset(block, 0, 64 * sizeof(int16_t));
  const int bound = 1 << draw(1, 15);
  const int last = draw(0, 3) == 0 ? 7 : 63;
  for (int n = draw(1, 40); n > 0; --n) {
    block[draw(0, last)] = static_cast<int16_t>(draw(-bound, bound - 1));
  }
}

// Four blocks, where that many are transformed at once.
bool are_four_equal(const InverseDct& plain, const InverseDct& vectors, const uint16_t* steps) {
  if (vectors.four == nullptr) return true;
  int16_t blocks[4][64];
  uint8_t expected[4][64], samples[4][64];
  const int16_t* ins[4];
  uint8_t* outs[4];
  for (int i = 0; i < 4; ++i) {
    draw_block(blocks[i]);
    plain.one(blocks[i], steps, 64, expected[i], 8);
    ins[i] = blocks[i];
    outs[i] = samples[i];
  }
  vectors.four(ins, steps, outs, 8);
  return std::memcmp(samples, expected, sizeof(samples)) == 0;
}

bool is_transform_equal(Simd simd) {
  const InverseDct plain = pick_inverse_dct(Simd::plain), vectors = pick_inverse_dct(simd);
  int16_t a[64], b[64];
  uint16_t steps[64];
  uint8_t samples[4][64];
  for (int i = 0; i < 20000; ++i) {
    draw_block(a);
    draw_block(b);
    const int bound = draw(1, 255);
    for (uint16_t& step : steps) step = static_cast<uint16_t>(draw(1, bound));
    plain.two(a, b, steps, samples[0], samples[1], 8);
    vectors.two(a, b, steps, samples[2], samples[3], 8);
    if (std::memcmp(samples[0], samples[2], 128) != 0) return false;
    if (!are_four_equal(plain, vectors, steps)) return false;
    std::memset(a + 1, 0, 63 * sizeof(int16_t));
    plain.one(a, steps, 1, samples[0], 8);
    vectors.one(a, steps, 64, samples[2], 8);
    if (std::memcmp(samples[0], samples[2], 64) != 0) return false;
  }
  return true;
}

bool is_reduction_equal(Simd simd) {
  int16_t a[64], b[64];
  uint16_t steps[64];
  uint8_t samples[4][32];
  for (int i = 0; i < 30000; ++i) {
    const int size = 1 << i % 3;
    const InverseDct plain = pick_reduced_dct(size, Simd::plain),
                     vectors = pick_reduced_dct(size, simd);
    draw_block(a);
    draw_block(b);
    const int bound = draw(1, 255);
    for (uint16_t& step : steps) step = static_cast<uint16_t>(draw(1, bound));
    std::memset(samples, 7, sizeof(samples));
    plain.two(a, b, steps, samples[0], samples[0] + 16, size);
    vectors.two(a, b, steps, samples[1], samples[1] + 16, size);
    vectors.one(a, steps, 64, samples[2], size);
    if (std::memcmp(samples[0], samples[1], 32) != 0) return false;
    if (std::memcmp(samples[0], samples[2], 16) != 0) return false;
    std::memset(a + 1, 0, 63 * sizeof(int16_t));
    plain.one(a, steps, 1, samples[0], size);
    vectors.one(a, steps, 64, samples[3], size);
    if (std::memcmp(samples[0], samples[3], 16) != 0) return false;
  }
  return true;
}

bool is_upsampling_equal(Simd simd) {
  for (const Upsampling kind : {Upsampling::h2v1, Upsampling::h1v2, Upsampling::h2v2}) {
    for (int num = 1; num < 100; ++num) {
      const auto near = draw_bytes(num + 2 * kRowSlack), far = draw_bytes(num + 2 * kRowSlack);
      std::vector<uint8_t> plain(2 * num + 2 * kRowSlack), vectors(plain.size());
      const bool is_lower = num % 2 == 0;
      const uint8_t* at = near.data() + 1;
      upsample_row(kind, at, far.data() + 1, is_lower, num, Simd::plain, plain.data());
      upsample_row(kind, at, far.data() + 1, is_lower, num, simd, vectors.data());
      const int length = kind == Upsampling::h1v2 ? num : 2 * num;
      if (std::memcmp(plain.data(), vectors.data(), length) != 0) return false;
    }
  }
  return true;
}

// Every pair of chroma values, with brightness all over; nothing is written behind a row.
bool is_conversion_equal(Simd simd) {
  for (int cb = 0; cb < 256; ++cb) {
    const int num = 256 - cb % 32;
    std::vector<uint8_t> y = draw_bytes(num + kRowSlack), b(num + kRowSlack), r(num + kRowSlack);
    for (int i = 0; i < num; ++i) {
      b[i] = static_cast<uint8_t>(cb);
      r[i] = static_cast<uint8_t>(i);
    }
    std::vector<uint8_t> plain(3 * num + 64, 7), vectors(3 * num + 64, 7);
    convert_row(y.data(), b.data(), r.data(), num, Simd::plain, plain.data());
    convert_row(y.data(), b.data(), r.data(), num, simd, vectors.data());
    if (plain != vectors || vectors[3 * num] != 7) return false;
  }
  return true;
}

// Rows of the output may lie apart; what is between and behind them stays as it was.
bool is_resampling_equal(Simd simd) {
  Resampler plain, vectors;
  plain.set_simd(Simd::plain);
  vectors.set_simd(simd);
  for (int i = 0; i < 300; ++i) {
    const int width = draw(1, 90), height = draw(1, 90);
    const int out_width = draw(1, 60), out_height = draw(1, 60);
    const auto picture = draw_bytes(size_t{3} * width * height + kReadPast);
    const Pixels in = {picture.data(), ptrdiff_t{3} * width, width, height};
    const ptrdiff_t row = ptrdiff_t{3} * out_width, stride = row + (i % 3 == 0 ? draw(1, 40) : 0);
    std::vector<uint8_t> a(stride * out_height + 32, 7), b(stride * out_height + 32, 7);
    const auto are_equal = [&](Status first, Status second) {
      bool are = first == Status::ok && second == Status::ok && a == b;
      for (ptrdiff_t at = 0; at < static_cast<ptrdiff_t>(b.size()); ++at) {
        are = are && (b[at] == 7 || (at % stride < row && at / stride < out_height));
      }
      return are;
    };
    if (!are_equal(plain.resize(in, i % 2, out_width, out_height, a.data(), stride),
                   vectors.resize(in, i % 2, out_width, out_height, b.data(), stride))) {
      return false;
    }
    Window part = {draw(0, 7) / 8.0, draw(0, 7) / 8.0, 0, 0};
    part.width = width - part.left - draw(0, 7) / 8.0;
    part.height = height - part.top - draw(0, 7) / 8.0;
    if (part.width <= 0 || part.height <= 0) continue;
    if (!are_equal(plain.resize(in, part, i % 2, out_width, out_height, a.data(), stride),
                   vectors.resize(in, part, i % 2, out_width, out_height, b.data(), stride))) {
      return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  const struct {
    const char* name;
    bool (*is_equal)(Simd);
  } checks[] = {{"transform", is_transform_equal},
                {"reduction", is_reduction_equal},
                {"upsampling", is_upsampling_equal},
                {"conversion", is_conversion_equal},
                {"resampling", is_resampling_equal}};
  int num_different = 0;
  for (const Simd simd : {Simd::plain, Simd::avx2, Simd::avx512}) {
    if (simd > find_simd()) continue;
    for (const auto& check : checks) {
      if (!check.is_equal(simd)) {
        std::printf("different: %s at %d\n", check.name, static_cast<int>(simd));
        ++num_different;
      }
    }
  }
  return num_different == 0 ? 0 : 1;
}
