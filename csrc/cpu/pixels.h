// What happens to the pixels of one row: grey, table, layout.
//
// A uint8 has 256 values, so a table of results per channel is exact to the last rounding, the same
// for every output type, and needs no vector unit: at one element a cycle the loop is bound by
// writing the output.
#pragma once

#include <array>
#include <cstdint>

#include "common.h"

namespace fastssl {

template <typename Out>
using Table = std::array<Out, 256>;

template <typename Out>
using Tables = std::array<Table<Out>, 3>;

// A row of pixels to read: the first one, the bytes from one to the next (-3 when mirrored).
struct Row {
  const uint8_t* first;
  int64_t step;
  int64_t num;
};

// Where a row goes: elements from one pixel to the next and from one channel to the next.
template <typename Out>
struct Target {
  Out* first;
  int64_t pixel_stride;
  int64_t channel_stride;
};

// ITU-R 601 luma with Pillow's rounding.
inline uint8_t luma(const uint8_t* pixel) {
  return static_cast<uint8_t>(
      (19595u * pixel[0] + 38470u * pixel[1] + 7471u * pixel[2] + 0x8000u) >> 16);
}

// (value / 255 - mean) / std of every value, each channel.
template <typename Out>
Tables<Out> normalize_tables(at::ArrayRef<double> mean, at::ArrayRef<double> std) {
  Tables<Out> tables;
  for (int channel = 0; channel < 3; ++channel) {
    for (int value = 0; value < 256; ++value) {
      tables[channel][value] =
          static_cast<Out>(static_cast<float>((value / 255.0 - mean[channel]) / std[channel]));
    }
  }
  return tables;
}

template <typename Out, int PixelStride>
void map_row_strided(const Row& row, bool grey, const Table<Out>& red, const Table<Out>& green,
                     const Table<Out>& blue, Out* out, int64_t channel_stride) {
  const uint8_t* pixel = row.first;
  Out* out_red = out;
  Out* out_green = out + channel_stride;
  Out* out_blue = out + 2 * channel_stride;
  if (grey) {
    for (int64_t i = 0; i < row.num; ++i, pixel += row.step) {
      const uint8_t value = luma(pixel);
      out_red[i * PixelStride] = red[value];
      out_green[i * PixelStride] = green[value];
      out_blue[i * PixelStride] = blue[value];
    }
  } else {
    for (int64_t i = 0; i < row.num; ++i, pixel += row.step) {
      out_red[i * PixelStride] = red[pixel[0]];
      out_green[i * PixelStride] = green[pixel[1]];
      out_blue[i * PixelStride] = blue[pixel[2]];
    }
  }
}

// Looks every pixel of a row up; planar (pixel stride 1) or interleaved (pixel stride 3).
template <typename Out>
void map_row(const Row& row, bool grey, const Table<Out>& red, const Table<Out>& green,
             const Table<Out>& blue, const Target<Out>& target) {
  if (target.pixel_stride == 1) {
    map_row_strided<Out, 1>(row, grey, red, green, blue, target.first, target.channel_stride);
  } else {
    map_row_strided<Out, 3>(row, grey, red, green, blue, target.first, target.channel_stride);
  }
}

// The pixels x .. x+num-1 of a row, counted in the mirrored image where `mirrored`.
inline Row cut_row(const Images& images, int64_t image, int64_t y, int64_t x, int64_t num,
                   bool mirrored) {
  const uint8_t* row = images.data + image * images.image_stride + y * images.row_stride;
  return mirrored ? Row{row + 3 * (images.width - 1 - x), -3, num} : Row{row + 3 * x, 3, num};
}

}  // namespace fastssl
