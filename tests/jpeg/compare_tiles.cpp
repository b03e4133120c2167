// Compares tiles with coefficients as libjpeg reads them, for tests of the transcoder's own check.
//
//   compare_tiles SOURCE TILES [COMPONENT BLOCK PLACE]
//
// Prints the status. With a place, 1 is added there before: PLACE of 64 in natural order, or 64 and
// above for the quantisation steps.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <vector>

// Behind <cstdio>: jpeglib.h uses FILE and size_t without a word.
#include <jpeglib.h>

#include "jpeg/compare.h"

using namespace fastssl::jpeg;

namespace {

std::vector<uint8_t> read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// Returns the coefficients of a component, blocks in rows.
std::vector<int16_t> read_blocks(jpeg_decompress_struct* object, jvirt_barray_ptr array, int i) {
  std::vector<int16_t> blocks;
  const jpeg_component_info& info = object->comp_info[i];
  for (JDIMENSION y = 0; y < info.height_in_blocks; ++y) {
    JBLOCKROW row = object->mem->access_virt_barray(reinterpret_cast<j_common_ptr>(object), array,
                                                    y, 1, FALSE)[0];
    const JCOEF* first = row[0];
    blocks.insert(blocks.end(), first, first + 64 * info.width_in_blocks);
  }
  return blocks;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<uint8_t> source = read_file(argv[1]), tiles = read_file(argv[2]);
  jpeg_decompress_struct object;
  jpeg_error_mgr errors;
  object.err = jpeg_std_error(&errors);
  jpeg_create_decompress(&object);
  jpeg_mem_src(&object, source.data(), source.size());
  jpeg_read_header(&object, TRUE);
  jvirt_barray_ptr* arrays = jpeg_read_coefficients(&object);
  std::vector<std::vector<int16_t>> blocks;
  std::vector<std::vector<uint16_t>> steps;
  for (int i = 0; i < object.num_components; ++i) {
    blocks.push_back(read_blocks(&object, arrays[i], i));
    const UINT16* values = object.comp_info[i].quant_table->quantval;
    steps.emplace_back(values, values + 64);
  }
  if (argc > 3) {
    const int component = std::atoi(argv[3]), block = std::atoi(argv[4]),
              place = std::atoi(argv[5]);
    if (place < 64) {
      ++blocks[component].at(64 * block + place);
    } else {
      ++steps[component].at(place - 64);
    }
  }
  std::vector<WantedPlane> planes;
  for (int i = 0; i < object.num_components; ++i) {
    const jpeg_component_info& info = object.comp_info[i];
    planes.push_back({steps[i].data(), {}, static_cast<int32_t>(info.width_in_blocks)});
    for (JDIMENSION y = 0; y < info.height_in_blocks; ++y) {
      planes[i].rows.push_back(blocks[i].data() + 64 * y * info.width_in_blocks);
    }
  }
  Layout layout;
  std::vector<uint32_t> offsets;
  Status status = parse(tiles.data(), tiles.size(), &layout);
  if (status == Status::ok) status = find_segments(tiles.data(), tiles.size(), layout, &offsets);
  if (status == Status::ok) {
    status = TileComparer().compare(tiles.data(), layout, offsets, planes);
  }
  std::printf("%d\n", static_cast<int>(status));
  jpeg_destroy_decompress(&object);
  return 0;
}
