// Writes small JPEGs of many kinds into a folder: seeds for the fuzz targets, and pictures for the
// tests. The same files every time.
//
//   make_corpus FOLDER [WIDTHxHEIGHT]
//
// Without a size every kind comes in several. Names say what is in a file, as in
// 17x33-420-restart4-exif6.jpg.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

// Behind <cstdio>: jpeglib.h uses FILE and size_t without a word.
#include <jpeglib.h>

namespace {

enum class Scans { interleaved, separate, progressive };

struct Kind {
  const char* name;
  J_COLOR_SPACE stored;
  int factors[4][2];  // Of each component: horizontal, vertical.
};

const Kind kKinds[] = {
    {"444", JCS_YCbCr, {{1, 1}, {1, 1}, {1, 1}}},
    {"422", JCS_YCbCr, {{2, 1}, {1, 1}, {1, 1}}},
    {"420", JCS_YCbCr, {{2, 2}, {1, 1}, {1, 1}}},
    {"440", JCS_YCbCr, {{1, 2}, {1, 1}, {1, 1}}},
    {"411", JCS_YCbCr, {{4, 1}, {1, 1}, {1, 1}}},
    {"441", JCS_YCbCr, {{1, 4}, {1, 1}, {1, 1}}},
    {"410", JCS_YCbCr, {{4, 2}, {1, 1}, {1, 1}}},  // 10 blocks an MCU: as many as there may be.
    {"odd", JCS_YCbCr, {{2, 2}, {2, 1}, {1, 1}}},  // Chroma components that differ.
    {"rgb", JCS_RGB, {{1, 1}, {1, 1}, {1, 1}}},
    {"grey", JCS_GRAYSCALE, {{1, 1}}},
    {"grey22",
     JCS_GRAYSCALE,
     {{2, 2}}},  // Factors that mean nothing in a picture of one component.
    {"cmyk", JCS_CMYK, {{1, 1}, {1, 1}, {1, 1}, {1, 1}}},
    {"ycck", JCS_YCCK, {{2, 2}, {1, 1}, {1, 1}, {2, 2}}},
};

struct Recipe {
  const Kind* kind;
  int width;
  int height;
  int quality;
  Scans scans;
  int restart;
  int orientation;  // 0: no EXIF.
  bool has_icc;
  bool has_jfif;
  std::string name;
};

// Smooth colours with some detail, so that all frequencies occur.
void draw_row(int y, int components, std::vector<uint8_t>* row) {
  for (size_t i = 0; i < row->size(); ++i) {
    const double x = static_cast<double>(i / components), c = static_cast<double>(i % components);
    const double wave = std::sin(0.11 * x + 0.07 * (c + 1) * y) +
                        0.5 * std::sin(0.9 * x * (c + 1)) + 0.4 * std::cos(0.31 * y - 0.05 * x * c);
    const double value = 128 + 60 * wave;
    (*row)[i] = static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
  }
}

void write_exif(jpeg_compress_struct* object, int orientation) {
  // Little-endian, unlike what the transcoder writes, and with an entry before the orientation.
  const uint8_t exif[] = {'E',
                          'x',
                          'i',
                          'f',
                          0,
                          0,
                          'I',
                          'I',
                          42,
                          0,
                          8,
                          0,
                          0,
                          0,
                          2,
                          0,
                          0x10,
                          1,
                          2,
                          0,
                          4,
                          0,
                          0,
                          0,
                          'f',
                          'u',
                          'z',
                          0,
                          0x12,
                          1,
                          3,
                          0,
                          1,
                          0,
                          0,
                          0,
                          static_cast<uint8_t>(orientation),
                          0,
                          0,
                          0,
                          0,
                          0,
                          0,
                          0};
  jpeg_write_marker(object, JPEG_APP0 + 1, exif, sizeof exif);
}

void write_icc(jpeg_compress_struct* object) {
  for (uint8_t part = 1; part <= 2; ++part) {
    std::vector<uint8_t> chunk = {'I', 'C', 'C', '_', 'P', 'R',  'O',
                                  'F', 'I', 'L', 'E', 0,   part, 2};
    chunk.resize(40, part);
    jpeg_write_marker(object, JPEG_APP0 + 2, chunk.data(), static_cast<unsigned>(chunk.size()));
  }
}

void write_comments(jpeg_compress_struct* object) {
  const uint8_t text[] = "comment";
  jpeg_write_marker(object, JPEG_COM, text, sizeof text);
  jpeg_write_marker(object, JPEG_APP0 + 13, text, sizeof text);
}

std::vector<jpeg_scan_info> separate_scans(int components) {
  std::vector<jpeg_scan_info> scans(static_cast<size_t>(components));
  for (int i = 0; i < components; ++i) {
    scans[i].comps_in_scan = 1;
    scans[i].component_index[0] = i;
    scans[i].Ss = 0;
    scans[i].Se = 63;
    scans[i].Ah = scans[i].Al = 0;
  }
  return scans;
}

void write(const std::string& folder, const Recipe& recipe) {
  const std::string path = folder + "/" + recipe.name + ".jpg";
  std::FILE* file = std::fopen(path.c_str(), "wb");
  if (file == nullptr) {
    std::fprintf(stderr, "error: %s cannot be written\n", path.c_str());
    std::exit(2);
  }
  jpeg_compress_struct object;
  jpeg_error_mgr errors;
  object.err = jpeg_std_error(&errors);
  jpeg_create_compress(&object);
  jpeg_stdio_dest(&object, file);
  const J_COLOR_SPACE stored = recipe.kind->stored;
  object.image_width = static_cast<JDIMENSION>(recipe.width);
  object.image_height = static_cast<JDIMENSION>(recipe.height);
  object.in_color_space = stored == JCS_YCbCr ? JCS_RGB : stored == JCS_YCCK ? JCS_CMYK : stored;
  object.input_components = stored == JCS_GRAYSCALE ? 1 : stored >= JCS_CMYK ? 4 : 3;
  jpeg_set_defaults(&object);
  jpeg_set_colorspace(&object, stored);
  jpeg_set_quality(&object, recipe.quality, TRUE);
  for (int i = 0; i < object.num_components; ++i) {
    object.comp_info[i].h_samp_factor = recipe.kind->factors[i][0];
    object.comp_info[i].v_samp_factor = recipe.kind->factors[i][1];
  }
  const std::vector<jpeg_scan_info> scans = separate_scans(object.num_components);
  if (recipe.scans == Scans::progressive) jpeg_simple_progression(&object);
  if (recipe.scans == Scans::separate) {
    object.scan_info = scans.data();
    object.num_scans = static_cast<int>(scans.size());
  }
  object.restart_interval = static_cast<unsigned>(recipe.restart);
  if (!recipe.has_jfif) object.write_JFIF_header = FALSE;
  jpeg_start_compress(&object, TRUE);
  if (recipe.orientation != 0) write_exif(&object, recipe.orientation);
  if (recipe.has_icc) write_icc(&object);
  write_comments(&object);
  std::vector<uint8_t> row(static_cast<size_t>(recipe.width) * object.input_components);
  for (int y = 0; y < recipe.height; ++y) {
    draw_row(y, object.input_components, &row);
    JSAMPROW rows[] = {row.data()};
    jpeg_write_scanlines(&object, rows, 1);
  }
  jpeg_finish_compress(&object);
  jpeg_destroy_compress(&object);
  std::fclose(file);
}

void write_kinds(const std::string& folder, int width, int height) {
  for (const Kind& kind : kKinds) {
    const std::string start =
        std::to_string(width) + "x" + std::to_string(height) + "-" + kind.name;
    const Recipe plain = {&kind, width, height, 85, Scans::interleaved, 0, 0, false, true, start};
    write(folder, plain);
    Recipe other = plain;
    other.scans = Scans::progressive;
    other.has_icc = true;
    other.name = start + "-progressive";
    write(folder, other);
    other = plain;
    other.scans = Scans::separate;
    other.has_jfif = false;
    other.name = start + "-separate";
    write(folder, other);
    other = plain;
    other.restart = 3;
    other.quality = 30;
    other.name = start + "-restart3";
    write(folder, other);
    for (int orientation = 1; orientation <= 8; ++orientation) {
      other = plain;
      other.orientation = orientation;
      other.name = start + "-exif" + std::to_string(orientation);
      write(folder, other);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: make_corpus FOLDER [WIDTHxHEIGHT]\n");
    return 2;
  }
  const std::string folder = argv[1];
  int width, height;
  if (argc > 2) {
    if (std::sscanf(argv[2], "%dx%d", &width, &height) != 2 || width < 1 || height < 1) {
      std::fprintf(stderr, "error: size %s, wanted WIDTHxHEIGHT\n", argv[2]);
      return 2;
    }
    write_kinds(folder, width, height);
    return 0;
  }
  // One pixel, less than a block, MCUs in part, and whole MCUs of every kind.
  const int sizes[][2] = {{1, 1}, {7, 9}, {17, 33}, {41, 30}, {64, 32}};
  for (const auto& size : sizes) write_kinds(folder, size[0], size[1]);
  return 0;
}
