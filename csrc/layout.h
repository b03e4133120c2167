// What every kernel is told about its input: raw pointers and sizes, no ATen types.
#pragma once

#include <cstdint>

namespace fastssl {

// A batch of interleaved RGB images whose pixels are dense inside a row; strides in bytes.
struct Images {
  const uint8_t* data;
  int64_t num;
  int64_t height;
  int64_t width;
  int64_t image_stride;
  int64_t row_stride;
};

// What to cut; flags and order are null where not given.
struct Cut {
  const int32_t* corners;  // (B, P, 2), y then x
  const int64_t* order;    // (B, P)
  const bool* flip;        // (B,)
  const bool* grey;        // (B,) or (B, P)
  bool grey_by_patch;
  int64_t num_patches;
  int64_t size;
};

// What becomes of the colours of each image.
struct Jitter {
  const bool* grey;              // (B,) or null: R, G and B become their grey first
  bool is_mean;                  // the mean of the channels, else their luma; neither is rounded
  const float* brightness;       // (B,): added to values of 0 .. 1
  const float* saturation;       // (B,): the factor of the saturation
  const bool* brightness_first;  // (B,): else the saturation changes first
};

// What becomes of each copy of each image; null where nothing of the kind does.
struct Augmentation {
  const float* gain;      // (B, K, 3): a factor of each normalised channel, and
  const float* shift;     // (B, K, 3): what is added to it; both or none
  const bool* grey;       // (B, K): all channels become their mean
  const bool* flip;       // (B, K)
  const int32_t* offset;  // (B, K, 2): row and column of the mirrored image that come first
  const int32_t* corner;  // (B, K, 2): where the square of zeros begins in the result
  int64_t copies;         // K
  int64_t cutout;         // side of that square; 0 where there is none
  bool is_lab;            // colours are L, a, b, else R, G, B of 0 .. 255
  float centre[3];        // normalised is (x - centre) * scale
  float scale[3];
};

// ITU-R 601 as Pillow has it, and the mean.
constexpr float kLumaOfRgb[3] = {19595.0f / 65536, 38470.0f / 65536, 7471.0f / 65536};
constexpr float kThird = 1.0f / 3;
// Of a pixel whose channels differ less the saturation is not looked at.
constexpr float kLeastDepth = 1e-6f;

// XYZ of linear sRGB, each row divided by white D65 (fastssl/ops/color_grid.py has the same).
constexpr float kXyzOfRgb[3][3] = {
    {static_cast<float>(0.412453 / 0.95047), static_cast<float>(0.357580 / 0.95047),
     static_cast<float>(0.180423 / 0.95047)},
    {0.212671f, 0.715160f, 0.072169f},
    {static_cast<float>(0.019334 / 1.08883), static_cast<float>(0.119193 / 1.08883),
     static_cast<float>(0.950227 / 1.08883)},
};

// A trunk sees lightness around zero: -50 .. 50.
constexpr float kMiddleLightness = 50.0f;

// How an image is split in what is seen and what is asked for.
struct Split {
  const bool* flip;  // (B,) or null
  int64_t stride;    // pixels to one pair of a and b, in both directions
  bool mean;         // a and b are averages, else those of the first pixel
  bool eight_bit;    // rounded as if stored in 8 bits
};

// The bins, who is near to whom, and how much each counts.
struct ColorCode {
  const float* bins;          // (Q, 2): a, b
  const float* weights;       // (Q,), or null: all count 1
  const int32_t* offsets;     // (kCells * kCells + 1,): where a cell's candidates begin
  const int16_t* candidates;  // bins that are among the K nearest of some point of the cell
  int64_t num_bins;           // Q
  int64_t num_neighbors;      // K
  float scale;                // shares are exp(squared distance * scale): -1 / (2 sigma^2)
};

// A share is left out below this part of the nearest bin's: all such together are less than float32
// resolves. Few bins are above it, however large K is.
constexpr float kLeastLogShare = -22.18f;  // ln(2^-32)

// The plane of a and b from -128 to 128, cut in squares.
constexpr int64_t kCells = 64;
constexpr float kCellSide = 4.0f;

// Logits as they lie: element (b, q, p) stands at b * Q * P + q * bin_stride + p * pixel_stride.
struct Logits {
  int64_t num_images;
  int64_t num_pixels;  // P, of one image
  int64_t bin_stride;
  int64_t pixel_stride;
};

}  // namespace fastssl
