// Any bytes: crops decode or are refused, entry points change no pixel, forged ones nothing else,
// and tiles show the same pixels as the file they come from.
#include "jpeg/crc32.h"
#include "jpeg/decode.h"
#include "jpeg/entry_points.h"
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

// What a crop is asked for.
struct Crops {
  const uint8_t* data;
  size_t size;
  const ViewBox* views;
  int32_t side;
  Dct dct;
};

Status decode(Decoder* decoder, const Crops& crops, const EntryRecord& record,
              std::vector<uint8_t>* out, Counters* counters) {
  return decoder->decode_views(crops.data, crops.size, crops.views, kViews, crops.side, crops.dct,
                               out->data(), counters, nullptr, 0, 0, record);
}

// Decodes by entry points, and by some that lie under a checksum that fits.
void check_entry_points(Decoder* decoder, const Crops& crops, uint32_t seed, Status status,
                        const std::vector<uint8_t>& plain) {
  static EntryFinder finder;
  const uint32_t crc = crc32(crops.data, crops.size);
  std::vector<uint8_t> found, out(plain.size());
  const auto apart = static_cast<int32_t>(1 + seed % 64);
  const Status end = finder.find(crops.data, crops.size, crc, apart, SIZE_MAX, &found);
  FASTSSL_FUZZ_CHECK(end == Status::ok || found.empty());
  if (found.empty()) return;
  EntryRecord record = {found.data(), found.size(), crc};
  FASTSSL_FUZZ_CHECK(finder.check(crops.data, crops.size, record) == Status::ok);
  Counters counters;
  const Status entered = decode(decoder, crops, record, &out, &counters);
  FASTSSL_FUZZ_CHECK(counters.records_refused == 0);
  if (status == Status::ok) FASTSSL_FUZZ_CHECK(entered == Status::ok && out == plain);
  for (uint32_t k = 0; k < 4; ++k) {
    seed = seed * 1664525u + 1013904223u;
    found[4 + (seed >> 8) % (found.size() - 4)] ^= static_cast<uint8_t>(1 + (seed >> 4) % 255);
    // The checksum is XOR of two CRC-32s.
    record.payload_crc = crc32(found.data() + 4, found.size() - 4) ^ found[0] ^ found[1] << 8 ^
                         found[2] << 16 ^ uint32_t { found[3] } << 24;
    finder.check(crops.data, crops.size, record);
    decode(decoder, crops, record, &out, &counters);
    FASTSSL_FUZZ_CHECK(counters.entropy_decoded_mcus <= counters.total_mcus);
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
  check_entry_points(&decoder, {data, size, views, side, dct}, seed, status, plain);
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
