// Writes what libjpeg reads of a JPEG, for tests that compare coefficients: int32 numbers, native
// byte order.
//
//   dump_coefficients FILE...
//
// Of each file: width, height, number of components; of each component: horizontal factor, vertical
// factor, blocks across, blocks down, 64 quantisation steps, then 64 coefficients of each block in
// natural order. A warning is an error.
#include <cstdint>
#include <cstdio>
#include <cstdlib>

// Behind <cstdio>: jpeglib.h uses FILE and size_t without a word.
#include <jpeglib.h>

namespace {

void put(int32_t value) { std::fwrite(&value, sizeof value, 1, stdout); }

void on_message(j_common_ptr object, int level) {
  if (level < 0) object->err->error_exit(object);
}

void dump(const char* path) {
  std::FILE* file = std::fopen(path, "rb");
  if (file == nullptr) std::exit(2);
  jpeg_decompress_struct object;
  jpeg_error_mgr errors;
  object.err = jpeg_std_error(&errors);
  errors.emit_message = on_message;
  jpeg_create_decompress(&object);
  jpeg_stdio_src(&object, file);
  jpeg_read_header(&object, TRUE);
  jvirt_barray_ptr* arrays = jpeg_read_coefficients(&object);
  put(static_cast<int32_t>(object.image_width));
  put(static_cast<int32_t>(object.image_height));
  put(object.num_components);
  for (int i = 0; i < object.num_components; ++i) {
    const jpeg_component_info& info = object.comp_info[i];
    put(info.h_samp_factor);
    put(info.v_samp_factor);
    put(static_cast<int32_t>(info.width_in_blocks));
    put(static_cast<int32_t>(info.height_in_blocks));
    for (unsigned step : info.quant_table->quantval) put(static_cast<int32_t>(step));
    for (JDIMENSION y = 0; y < info.height_in_blocks; ++y) {
      JBLOCKROW row = object.mem->access_virt_barray(reinterpret_cast<j_common_ptr>(&object),
                                                     arrays[i], y, 1, FALSE)[0];
      for (JDIMENSION x = 0; x < info.width_in_blocks; ++x) {
        for (JCOEF value : row[x]) put(value);
      }
    }
  }
  jpeg_destroy_decompress(&object);
  std::fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) dump(argv[i]);
  return 0;
}
