// Entry points: places inside the scan of a JPEG that nobody may change, from which decoding can
// begin as at a restart marker. They are found once, kept beside the file as a record of some
// bytes, and read again by who decodes.
//
// A record, little-endian: a checksum (4 bytes: CRC-32 of all that follows, XOR the payload's own),
// the MCUs between two entries (2), four parameters of Rice codes (1 each: of bits, and of
// the DC of each component). Then, the highest bits first, for every entry in order: how many bits
// of the file it lies behind the one before, and how much each component's DC differs from there.
// MCU 0 and those behind a restart marker have no entry: their place and their DC are known.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "jpeg/parse.h"
#include "jpeg/scan.h"
#include "jpeg/status.h"
#include "jpeg/tables.h"

namespace fastssl::jpeg {

// The record of a payload, as it was read from where it is kept.
struct EntryRecord {
  const uint8_t* data = nullptr;
  size_t size = 0;           // 0: there is none.
  uint32_t payload_crc = 0;  // CRC-32 of the payload that is decoded.
};

// Where an MCU begins.
struct EntryPoint {
  uint64_t bit;   // Of the file, its stuffing counted.
  int16_t dc[3];  // Of each component, of the block before.
};

// What a record says.
class EntryPoints {
 public:
  // Takes a record apart. What it says lies inside the payload, but may be a lie all the same: only
  // whoever finds the entries again can prove it.
  //
  // size: of the payload in bytes.
  //   corrupt: it is damaged, or of another payload; there are no entries then.
  Status read(const EntryRecord& record, size_t size, const Layout& layout);

  void clear() { spacing_ = 0; }

  // MCUs between two entries; 0 without any.
  int64_t spacing() const { return spacing_; }

  // The entry of an MCU that is a multiple of the spacing, but neither 0 nor behind a restart
  // marker.
  const EntryPoint& at(int64_t mcu) const { return points_[mcu / spacing_ - 1]; }

 private:
  int64_t spacing_ = 0;
  std::vector<EntryPoint> points_;
};

// Finds entry points.
class EntryFinder {
 public:
  // Reads the whole scan once, and writes its record.
  //
  // crc: CRC-32 of the payload.
  // bytes_apart: of the payload between two entries, about; more where the record would be too
  // long. most: bytes of the record. out: empty where entries gain nothing, as in small files and
  // between close restarts.
  //   unsupported: not of one baseline scan, grey or of three components.
  //   anything else: damaged.
  Status find(const uint8_t* data, size_t size, uint32_t crc, int32_t bytes_apart, size_t most,
              std::vector<uint8_t>* out);

  // Finds the entries again, to see that a record says nothing but the truth.
  //   corrupt: it does not, or is damaged, or of another payload.
  Status check(const uint8_t* data, size_t size, const EntryRecord& record);

 private:
  Status begin(const uint8_t* data, size_t size, Layout* layout);
  int64_t num_bytes() const { return offsets_.back() - offsets_.front(); }  // Of the scan.
  Status walk(const uint8_t* data, const Layout& layout, int64_t spacing);
  bool take(const Chunk& chunk);
  void add_stuffing(const uint8_t* data, int64_t spacing);

  ScanTables tables_;
  ScanDecoder scan_;
  std::vector<uint32_t> offsets_;
  std::vector<EntryPoint> points_;
  EntryPoints said_;
  std::vector<int> component_of_;  // Of each block of an MCU.
  int64_t interval_ = 0;
  int64_t spacing_ = 0;
  int64_t total_ = 0;
};

}  // namespace fastssl::jpeg
