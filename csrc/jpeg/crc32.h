// CRC-32 of zlib (polynomial 0xEDB88320, reflected), as the index holds it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastssl::jpeg {

// Equal to zlib.crc32(data). Takes carry-less multiplication where the processor has it.
uint32_t crc32(const uint8_t* data, size_t size);

// The same by tables alone: what other processors take, and what the former is tested against.
uint32_t crc32_by_tables(const uint8_t* data, size_t size);

}  // namespace fastssl::jpeg
