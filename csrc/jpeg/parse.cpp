#include "jpeg/parse.h"

#include <algorithm>
#include <cstring>
#include <new>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace fastssl::jpeg {
namespace {

constexpr uint8_t kSoi = 0xD8, kEoi = 0xD9, kSos = 0xDA, kDnl = 0xDC, kDri = 0xDD;
constexpr uint8_t kApp0 = 0xE0, kApp1 = 0xE1, kApp14 = 0xEE;
constexpr uint16_t kOrientationTag = 0x0112;
constexpr int kMaxExifBlocks = 8;
// Real pictures have up to some dozens of scans; a file of nothing but scans is a trap.
constexpr int kMaxScans = 1000;

inline int read_u16(const uint8_t* at) { return at[0] << 8 | at[1]; }

inline bool is_restart(uint8_t marker) { return marker >= 0xD0 && marker <= 0xD7; }

inline bool is_frame(uint8_t marker) {
  return marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

// The body of a marker segment, behind its length.
struct Body {
  const uint8_t* data;
  size_t size;

  bool begins_with(const char* text, size_t length) const {
    return size >= length && std::memcmp(data, text, length) == 0;
  }
};

// ---- EXIF ---------------------------------------------------------------------------------------

// EXIF may go on in a further APP1; its positions count through all of them.
class Exif {
 public:
  bool add(Body part) {
    if (num_parts_ == kMaxExifBlocks) return false;
    parts_[num_parts_++] = part;
    return true;
  }

  // As fastssl.shards.picture.parse_orientation does it: the two must agree on any bytes.
  int read_orientation() {
    uint64_t start, count;
    uint8_t magic[4];
    for (uint64_t i = 0; i < 4; ++i) {
      if (!read_byte(i, &magic[i])) return 1;
    }
    if (std::memcmp(magic, "II*\0", 4) == 0) {
      is_little_ = true;
    } else if (std::memcmp(magic, "MM\0*", 4) != 0) {
      return 1;
    }
    if (!read_number(4, 4, &start) || !read_number(start, 2, &count)) return 1;
    for (uint64_t i = 0; i < count; ++i) {
      const uint64_t at = start + 2 + 12 * i;
      uint64_t tag, kind, length, value;
      if (!read_number(at, 2, &tag) || !read_number(at + 2, 2, &kind) ||
          !read_number(at + 4, 4, &length)) {
        return 1;
      }
      if (tag != kOrientationTag) continue;
      const int width = kind == 1 ? 1 : kind == 3 ? 2 : kind == 4 ? 4 : 0;
      if (width == 0 || length != 1 || !read_number(at + 8, width, &value)) return 1;
      return value >= 1 && value <= 8 ? static_cast<int>(value) : 1;
    }
    return 1;
  }

 private:
  bool read_byte(uint64_t at, uint8_t* out) const {
    for (int i = 0; i < num_parts_; ++i) {
      if (at < parts_[i].size) {
        *out = parts_[i].data[at];
        return true;
      }
      at -= parts_[i].size;
    }
    return false;
  }

  bool read_number(uint64_t at, int width, uint64_t* out) const {
    *out = 0;
    for (int i = 0; i < width; ++i) {
      uint8_t byte;
      if (!read_byte(at + i, &byte)) return false;
      *out |= static_cast<uint64_t>(byte) << 8 * (is_little_ ? i : width - 1 - i);
    }
    return true;
  }

  Body parts_[kMaxExifBlocks] = {};
  int num_parts_ = 0;
  bool is_little_ = false;
};

// ---- the segments before the first scan ---------------------------------------------------------

// Fills in what follows from size and factors.
Status measure_mcus(Layout* out) {
  int max_h = 1, max_v = 1, blocks = 0;
  for (int i = 0; i < out->num_components; ++i) {
    const Component& component = out->components[i];
    max_h = std::max<int>(max_h, component.h);
    max_v = std::max<int>(max_v, component.v);
    blocks += component.h * component.v;
  }
  const bool is_one = out->num_components == 1;
  out->blocks_per_mcu = is_one ? 1 : blocks;
  out->mcu_width = is_one ? 8 : 8 * max_h;
  out->mcu_height = is_one ? 8 : 8 * max_v;
  out->mcus_per_row = (out->width + out->mcu_width - 1) / out->mcu_width;
  out->mcu_rows = (out->height + out->mcu_height - 1) / out->mcu_height;
  return Status::ok;
}

Status read_frame(uint8_t marker, Body body, Layout* out) {
  if (out->frame != 0) return Status::corrupt;
  if (body.size < 6) return Status::corrupt;
  const int num = body.data[5];
  if (body.size != 6 + 3 * static_cast<size_t>(num)) return Status::corrupt;
  out->frame = marker;
  out->precision = body.data[0];
  out->height = read_u16(body.data + 1);
  out->width = read_u16(body.data + 3);
  out->num_components = num;
  if (out->width == 0 || num == 0) return Status::corrupt;
  if (out->height == 0) return Status::unsupported;  // A DNL marker would tell it later.
  if (num != 1 && num != 3 && num != 4) return Status::unsupported;
  for (int i = 0; i < num; ++i) {
    const uint8_t* triple = body.data + 6 + 3 * i;
    Component& component = out->components[i];
    component = {triple[0], static_cast<uint8_t>(triple[1] >> 4),
                 static_cast<uint8_t>(triple[1] & 15), triple[2]};
    const bool is_sane = component.h >= 1 && component.h <= 4 && component.v >= 1 &&
                         component.v <= 4 && component.quantisation_table <= 3;
    if (!is_sane) return Status::corrupt;
  }
  out->is_baseline = marker == 0xC0 && out->precision == 8;
  out->is_progressive = marker == 0xC2;
  return measure_mcus(out);
}

Status read_scan(Body body, Layout* out) {
  if (out->frame == 0 || body.size < 1) return Status::corrupt;
  const int num = body.data[0];
  if (num < 1 || num > out->num_components || body.size != 4 + 2 * static_cast<size_t>(num)) {
    return Status::corrupt;
  }
  const bool is_sequential = out->frame == 0xC0 || out->frame == 0xC1;
  out->is_single_scan = is_sequential && num == out->num_components;
  return Status::ok;
}

Status read_segment(uint8_t marker, Body body, Layout* out, Exif* exif) {
  if (is_frame(marker)) return read_frame(marker, body, out);
  switch (marker) {
    case kSos:
      return read_scan(body, out);
    case kDri:
      if (body.size != 2) return Status::corrupt;
      out->restart_interval = read_u16(body.data);
      return Status::ok;
    case kApp0:
      if (body.size >= 14 && body.begins_with("JFIF\0", 5)) out->has_jfif = true;
      return Status::ok;
    case kApp1:
      if (!body.begins_with("Exif\0\0", 6)) return Status::ok;
      return exif->add({body.data + 6, body.size - 6}) ? Status::ok : Status::unsupported;
    case kApp14:
      if (body.size >= 12 && body.begins_with("Adobe", 5)) out->adobe_transform = body.data[11];
      return Status::ok;
    default:
      return Status::ok;
  }
}

bool has_length(uint8_t marker) {
  return marker >= 0xC0 && marker != kSoi && marker != kEoi && !is_restart(marker);
}

// A marker segment: where its 0xFF lies, and what is in it.
struct Segment {
  uint8_t marker;
  size_t begin;
  Body body;
  size_t end;
};

// Finds the next marker at or behind a position and its segment. Stray bytes are passed over, as
// libjpeg does, and so is what stands alone (restarts, TEM).
Status next_segment(const uint8_t* data, size_t size, size_t at, Segment* out) {
  for (;;) {
    const void* found = at < size ? std::memchr(data + at, 0xFF, size - at) : nullptr;
    if (found == nullptr) return Status::truncated;
    at = static_cast<const uint8_t*>(found) - data;
    while (at + 1 < size && data[at + 1] == 0xFF) ++at;
    if (at + 1 >= size) return Status::truncated;
    out->marker = data[at + 1];
    out->begin = at;
    out->end = at + 2;
    out->body = {data + out->end, 0};
    if (out->marker == 0 || out->marker == 0x01 || is_restart(out->marker)) {
      at += 2;
      continue;
    }
    if (out->marker == kEoi) return Status::ok;
    if (!has_length(out->marker)) return Status::corrupt;
    if (size - out->end < 2) return Status::truncated;
    const size_t length = read_u16(data + out->end);
    if (length < 2) return Status::corrupt;
    if (size - out->end < length) return Status::truncated;
    out->body = {data + out->end + 2, length - 2};
    out->end += length;
    return Status::ok;
  }
}

// ---- entropy-coded data -------------------------------------------------------------------------

// Returns the position of the next 0xFF that is not followed by 0x00, or size.
size_t find_marker(const uint8_t* data, size_t size, size_t at) {
#if defined(__SSE2__)
  // A byte in 150 is a stuffed 0xFF, which makes memchr stop all the time.
  const __m128i ones = _mm_set1_epi8(-1), zeros = _mm_setzero_si128();
  for (; at < size && size - at > 16; at += 16) {
    const __m128i here = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + at));
    const __m128i next = _mm_loadu_si128(reinterpret_cast<const __m128i*>(data + at + 1));
    const __m128i found = _mm_andnot_si128(_mm_cmpeq_epi8(next, zeros), _mm_cmpeq_epi8(here, ones));
    if (const int mask = _mm_movemask_epi8(found); mask != 0) {
      return at + static_cast<size_t>(__builtin_ctz(static_cast<unsigned>(mask)));
    }
  }
#endif
  for (; at < size; ++at) {
    if (data[at] == 0xFF && (at + 1 >= size || data[at + 1] != 0)) return at;
  }
  return size;
}

// Finds the next marker in a scan, at `begin` its first 0xFF, at `at` its last.
Status next_scan_marker(const uint8_t* data, size_t size, size_t* at, uint8_t* marker) {
  *at = find_marker(data, size, *at);
  while (*at + 1 < size && data[*at + 1] == 0xFF) ++*at;
  if (*at >= size || size - *at < 2) return Status::truncated;
  *marker = data[*at + 1];
  // Fill bytes, then a zero: readers disagree whether that is a stuffed 0xFF.
  return *marker == 0 ? Status::corrupt : Status::ok;
}

}  // namespace

Status parse_header(const uint8_t* data, size_t size, Layout* out) {
  *out = Layout{};
  out->adobe_transform = -1;
  out->orientation = 1;
  if (size < 2) return Status::truncated;
  if (data[0] != 0xFF || data[1] != kSoi) return Status::corrupt;
  Exif exif;
  Segment segment{};
  for (size_t at = 2;; at = segment.end) {
    Status status = next_segment(data, size, at, &segment);
    if (status != Status::ok) return status;
    if (segment.marker == kEoi || segment.marker == kDnl) return Status::corrupt;
    if (is_frame(segment.marker)) out->frame_begin = segment.begin;
    status = read_segment(segment.marker, segment.body, out, &exif);
    if (status != Status::ok) return status;
    if (segment.marker == kSos) break;
  }
  out->scan_begin = segment.begin;
  out->entropy_begin = segment.end;
  out->orientation = exif.read_orientation();
  return Status::ok;
}

Status parse(const uint8_t* data, size_t size, Layout* out) {
  Status status = parse_header(data, size, out);
  if (status != Status::ok) return status;
  Segment segment{kSos, out->scan_begin, {}, out->entropy_begin};
  while (segment.marker != kEoi) {
    size_t at = segment.end;
    if (segment.marker == kSos) {
      if (++out->num_scans > kMaxScans) return Status::unsupported;
      uint8_t marker;
      do {
        status = next_scan_marker(data, size, &at, &marker);
        if (status != Status::ok) return status;
        if (is_restart(marker)) at += 2;
      } while (is_restart(marker));
      if (out->num_scans == 1) out->entropy_end = at;
    }
    status = next_segment(data, size, at, &segment);
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

Status find_segments(const uint8_t* data, size_t size, const Layout& layout,
                     std::vector<uint32_t>* offsets) {
  offsets->clear();
  if (!layout.is_single_scan || layout.blocks_per_mcu > 10 || size > UINT32_MAX) {
    return Status::unsupported;
  }
  if (layout.entropy_begin > size) return Status::truncated;
  const int64_t num_mcus = count_mcus(layout), interval = layout.restart_interval;
  const uint64_t wanted = interval == 0 ? 1 : (num_mcus + interval - 1) / interval;
  // A restart takes two bytes at the least: no memory for more than there can be.
  if (wanted - 1 > (size - layout.entropy_begin) / 2) return Status::corrupt;
  try {
    offsets->reserve(wanted + 1);
  } catch (const std::bad_alloc&) {
    return Status::no_memory;
  }
  size_t at = layout.entropy_begin;
  offsets->push_back(static_cast<uint32_t>(at));
  for (;;) {
    uint8_t marker;
    const Status status = next_scan_marker(data, size, &at, &marker);
    if (status != Status::ok) return status;
    at += 2;
    const size_t done = offsets->size();
    const bool is_last = done == wanted;
    const uint8_t expected = is_last ? kEoi : static_cast<uint8_t>(0xD0 + (done - 1) % 8);
    if (marker != expected) return Status::corrupt;
    offsets->push_back(static_cast<uint32_t>(at));
    if (is_last) return Status::ok;
  }
}

}  // namespace fastssl::jpeg
