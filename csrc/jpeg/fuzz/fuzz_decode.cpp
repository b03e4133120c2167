// Any bytes: crops decode or are refused, and tiles show the same pixels as the file they come
// from.
#include "jpeg/decode.h"
#include "jpeg/fuzz/target.h"
#include "jpeg/transcode.h"

using namespace fastssl::jpeg;

namespace {

constexpr int kViews = 2, kMaxSide = 8;

// Boxes all over the upright picture, and sizes up to the side, chosen by the bytes.
void choose_views(const Layout& layout, uint32_t seed, int32_t side, ViewBox* views) {
  const bool is_turned = layout.orientation >= 5;
  const int32_t width = is_turned ? layout.height : layout.width;
  const int32_t height = is_turned ? layout.width : layout.height;
  auto draw = [&seed](int32_t below) {
    seed = seed * 1664525u + 1013904223u;
    return static_cast<int32_t>((seed >> 8) % static_cast<uint32_t>(below));
  };
  for (int i = 0; i < kViews; ++i) {
    ViewBox& view = views[i];
    view = {};
    view.left = draw(width);
    view.top = draw(height);
    view.width = 1 + draw(width - view.left);
    view.height = 1 + draw(height - view.top);
    view.filter = draw(2);
    view.out_width = 1 + draw(side);
    view.out_height = 1 + draw(side);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Layout layout;
  const Status parsed = parse_header(data, size, &layout);
  if (parsed == Status::ok && !is_small(layout)) return 0;
  const uint32_t seed = hash_bytes(data, size);
  // Small sides, so that scaled decoding finds boxes that are large enough.
  const int32_t side = 1 + static_cast<int32_t>(seed >> 8) % kMaxSide;
  ViewBox views[kViews] = {{0, 0, 1, 1, 0, 0, 0, 1, 1}, {0, 0, 1, 1, 0, 0, 0, side, side}};
  if (parsed == Status::ok) choose_views(layout, seed, side, views);
  const Dct dct = seed % 2 == 0 ? Dct::exact : Dct::scaled;
  static Decoder decoder;  // Used again, as a loader's thread does: nothing may stay behind.
  std::vector<uint8_t> plain(kViews * kMaxSide * kMaxSide * 3), tiles(plain.size());
  Counters counters;
  const Status status =
      decoder.decode_views(data, size, views, kViews, side, dct, plain.data(), &counters);
  FASTSSL_FUZZ_CHECK(counters.entropy_decoded_mcus <= counters.total_mcus);
  std::vector<uint8_t> tiled;
  Layout written;
  if (transcode(data, size, static_cast<int32_t>(seed % 9), &tiled) != Status::ok) return 0;
  FASTSSL_FUZZ_CHECK(parse(tiled.data(), tiled.size(), &written) == Status::ok);
  if (written.orientation != layout.orientation) return 0;  // Turned: equal but for rounding.
  const Status again = decoder.decode_views(tiled.data(), tiled.size(), views, kViews, side, dct,
                                            tiles.data(), &counters);
  // Stray bytes are a warning in the one file and gone from the other.
  if (status == Status::ok) {
    FASTSSL_FUZZ_CHECK(again == Status::ok && plain == tiles);
  }
  return 0;
}
