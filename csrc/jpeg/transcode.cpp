#include "jpeg/transcode.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <utility>

// Behind <cstdio>: jpeglib.h uses FILE and size_t without a word.
#include <jerror.h>
#include <jpeglib.h>

#include "jpeg/compare.h"
#include "jpeg/symbols.h"
#include "jpeg/turn.h"

namespace fastssl::jpeg {
namespace {

constexpr uint64_t kMaxCoefficientBytes = uint64_t{1} << 30;
constexpr int kMaxBlocksPerMcu = 10;
constexpr int kAdobeMarker = JPEG_APP0 + 14, kIccMarker = JPEG_APP0 + 2,
              kExifMarker = JPEG_APP0 + 1;
constexpr uint8_t kIccName[] = "ICC_PROFILE";  // With its zero.
constexpr uint8_t kAdobeName[] = {'A', 'd', 'o', 'b', 'e'};

// ---- libjpeg's ways out -------------------------------------------------------------------------

struct ErrorManager {
  jpeg_error_mgr base;
  std::jmp_buf jump;
  Status status;
};

[[noreturn]] void leave(j_common_ptr object, Status status) {
  auto* errors = reinterpret_cast<ErrorManager*>(object->err);
  errors->status = status;
  std::longjmp(errors->jump, 1);
}

void on_error(j_common_ptr object) {
  switch (object->err->msg_code) {
    case JERR_OUT_OF_MEMORY:
      leave(object, Status::no_memory);
    case JERR_IMAGE_TOO_BIG:  // Above 65,500 pixels a side.
      leave(object, Status::too_large);
    case JERR_SOF_UNSUPPORTED:
    case JERR_BAD_PRECISION:
    case JERR_MISMATCHED_QUANT_TABLE:
      leave(object, Status::unsupported);
    default:
      leave(object, Status::corrupt);
  }
}

void on_message(j_common_ptr object, int level) {
  if (level >= 0) return;  // Trace messages.
  // Stray bytes between segments: no pixel depends on them, and they are not written again.
  if (object->err->msg_code == JWRN_EXTRANEOUS_DATA) return;
  leave(object, object->err->msg_code == JWRN_JPEG_EOF ? Status::truncated : Status::corrupt);
}

void ignore_output(j_common_ptr) {}

jpeg_error_mgr* set_errors(ErrorManager* errors) {
  jpeg_std_error(&errors->base);
  errors->base.error_exit = on_error;
  errors->base.emit_message = on_message;
  errors->base.output_message = ignore_output;
  return &errors->base;
}

// Where libjpeg writes to. Its own jpeg_mem_dest loses its memory when it leaves by an error.
struct Destination {
  jpeg_destination_mgr base;
  uint8_t* data;
  size_t capacity;
};

void grow(j_compress_ptr object) {
  auto* target = reinterpret_cast<Destination*>(object->dest);
  const size_t capacity = target->capacity == 0 ? size_t{1} << 16 : target->capacity * 2;
  auto* data = static_cast<uint8_t*>(std::realloc(target->data, capacity));
  if (data == nullptr) leave(reinterpret_cast<j_common_ptr>(object), Status::no_memory);
  target->base.next_output_byte = data + target->capacity;
  target->base.free_in_buffer = capacity - target->capacity;
  target->data = data;
  target->capacity = capacity;
}

boolean on_full(j_compress_ptr object) {
  grow(object);
  return TRUE;
}

void on_term(j_compress_ptr) {}

// ---- the work -----------------------------------------------------------------------------------

// A component's blocks in one row of MCUs.
struct Strip {
  JBLOCKARRAY rows;
  JDIMENSION width;   // In blocks.
  JDIMENSION height;  // In blocks, of those in this row of MCUs.
  JDIMENSION h;       // Blocks of an MCU across.
  JDIMENSION v;       // And down.
};

// The two libjpeg objects of one call. Functions that libjpeg may leave by longjmp hold nothing
// that has a destructor.
class Transcoder {
 public:
  Transcoder() {
    std::memset(&source_, 0, sizeof source_);
    std::memset(&target_, 0, sizeof target_);
    std::memset(&output_, 0, sizeof output_);
  }
  Transcoder(const Transcoder&) = delete;
  Transcoder& operator=(const Transcoder&) = delete;

  ~Transcoder() {
    if (target_.mem != nullptr) jpeg_destroy_compress(&target_);
    if (source_.mem != nullptr) jpeg_destroy_decompress(&source_);
    std::free(output_.data);
  }

  Status run(const uint8_t* data, size_t size, const Layout& layout, int interval) {
    if (setjmp(errors_.jump)) return errors_.status;
    Status status = read(data, size, layout);
    if (status != Status::ok) return status;
    return write(layout, interval) ? Status::ok : Status::corrupt;
  }

  // Throws bad_alloc.
  Status check(const Layout& before);

  const uint8_t* data() const { return output_.data; }
  size_t size() const { return output_.capacity - output_.base.free_in_buffer; }

 private:
  Status read(const uint8_t* data, size_t size, const Layout& layout);
  bool write(const Layout& layout, int interval);
  Strip open_strip(int component, JDIMENSION mcu_row);
  void set_table(JHUFF_TBL** table, const SymbolCounts& counts);
  void write_markers(int orientation);
  void turn_tables();
  void turn_blocks(Turn turn);
  bool count_symbols(int interval, SymbolCounts* dc, SymbolCounts* ac);
  bool fit_tables(int interval);
  bool has_wanted_header(const Layout& before, const Layout& written) const;
  Status list_planes(std::vector<WantedPlane>* planes);

  ErrorManager errors_{};
  jpeg_decompress_struct source_;
  jpeg_compress_struct target_;
  Destination output_;
  // As they are written. The source owns them, turned ones too: the target forgets all that is its
  // own as soon as it has written.
  jvirt_barray_ptr* coefficients_ = nullptr;
  bool is_transposed_ = false;
  jvirt_barray_ptr turned_[MAX_COMPONENTS] = {};
};

Status Transcoder::read(const uint8_t* data, size_t size, const Layout& layout) {
  source_.err = set_errors(&errors_);
  jpeg_create_decompress(&source_);
  jpeg_mem_src(&source_, const_cast<uint8_t*>(data), size);
  jpeg_save_markers(&source_, kAdobeMarker, 0xFFFF);
  jpeg_save_markers(&source_, kIccMarker, 0xFFFF);
  jpeg_read_header(&source_, TRUE);
  // Markers behind the first scan change no decoder's picture, but would as part of the header.
  jpeg_save_markers(&source_, kAdobeMarker, 0);
  jpeg_save_markers(&source_, kIccMarker, 0);
  coefficients_ = jpeg_read_coefficients(&source_);
  for (int i = 0; i < source_.num_components; ++i) {
    const JQUANT_TBL* table = source_.comp_info[i].quant_table;
    if (table == nullptr) return Status::corrupt;
    for (int k = 0; k < DCTSIZE2; ++k) {
      if (table->quantval[k] > 255) return Status::unsupported;
      if (table->quantval[k] == 0) return Status::corrupt;
      if (layout.is_progressive && source_.coef_bits[i][k] != 0) return Status::unsupported;
    }
  }
  return Status::ok;
}

void Transcoder::turn_tables() {
  std::swap(target_.image_width, target_.image_height);
#if JPEG_LIB_VERSION >= 70
  std::swap(target_.jpeg_width, target_.jpeg_height);
#endif
  for (int i = 0; i < target_.num_components; ++i) {
    std::swap(target_.comp_info[i].h_samp_factor, target_.comp_info[i].v_samp_factor);
  }
  for (JQUANT_TBL* table : target_.quant_tbl_ptrs) {
    if (table == nullptr) continue;
    for (int v = 0; v < DCTSIZE; ++v) {
      for (int h = 0; h < v; ++h) {
        std::swap(table->quantval[v * DCTSIZE + h], table->quantval[h * DCTSIZE + v]);
      }
    }
  }
}

void Transcoder::turn_blocks(Turn turn) {
  auto* object = reinterpret_cast<j_common_ptr>(&source_);
  auto round_up = [](JDIMENSION value, int unit) { return (value + unit - 1) / unit * unit; };
  for (int i = 0; i < source_.num_components; ++i) {
    const jpeg_component_info& from = source_.comp_info[i];
    const int h = turn.transpose ? from.v_samp_factor : from.h_samp_factor;
    const int v = turn.transpose ? from.h_samp_factor : from.v_samp_factor;
    const JDIMENSION width = turn.transpose ? from.height_in_blocks : from.width_in_blocks;
    const JDIMENSION height = turn.transpose ? from.width_in_blocks : from.height_in_blocks;
    turned_[i] = source_.mem->request_virt_barray(object, JPOOL_IMAGE, TRUE, round_up(width, h),
                                                  round_up(height, v), static_cast<JDIMENSION>(v));
  }
  source_.mem->realize_virt_arrays(object);
  for (int i = 0; i < source_.num_components; ++i) {
    const jpeg_component_info& from = source_.comp_info[i];
    const JDIMENSION width = from.width_in_blocks, height = from.height_in_blocks;
    // Rows have to be written from the first on: libjpeg refuses to skip some.
    for (JDIMENSION row = 0; row < (turn.transpose ? width : height); ++row) {
      const JBLOCKROW target = source_.mem->access_virt_barray(object, turned_[i], row, 1, TRUE)[0];
      for (JDIMENSION column = 0; column < (turn.transpose ? height : width); ++column) {
        const JDIMENSION u = turn.transpose ? row : column, v = turn.transpose ? column : row;
        const JDIMENSION x = turn.flip_x ? width - 1 - u : u, y = turn.flip_y ? height - 1 - v : v;
        const JBLOCKROW source =
            source_.mem->access_virt_barray(object, coefficients_[i], y, 1, FALSE)[0];
        turn_block(source[x], turn, target[column]);
      }
    }
  }
  coefficients_ = turned_;
}

void Transcoder::write_markers(int orientation) {
  if (orientation != 1) {
    // Big-endian TIFF with one entry: tag 0x0112, a short, once.
    const uint8_t exif[] = {
        'E', 'x', 'i', 'f', 0,    0, 'M', 'M', 0, 42, 0, 0, 0,
        8,   0,   1,   1,   0x12, 0, 3,   0,   0, 0,  1, 0, static_cast<uint8_t>(orientation),
        0,   0,   0,   0,   0,    0};
    jpeg_write_marker(&target_, kExifMarker, exif, sizeof exif);
  }
  for (jpeg_saved_marker_ptr marker = source_.marker_list; marker; marker = marker->next) {
    const uint8_t* name = marker->marker == kIccMarker ? kIccName : kAdobeName;
    const size_t length = marker->marker == kIccMarker ? sizeof kIccName : sizeof kAdobeName;
    if (marker->data_length >= length && std::memcmp(marker->data, name, length) == 0) {
      jpeg_write_marker(&target_, marker->marker, marker->data, marker->data_length);
    }
  }
}

Strip Transcoder::open_strip(int component, JDIMENSION mcu_row) {
  const jpeg_component_info& from = source_.comp_info[component];
  const jpeg_component_info& to = target_.comp_info[component];
  const bool is_one = target_.num_components == 1;
  Strip strip;
  strip.width = is_transposed_ ? from.height_in_blocks : from.width_in_blocks;
  strip.h = is_one ? 1 : to.h_samp_factor;
  strip.v = is_one ? 1 : to.v_samp_factor;
  const JDIMENSION first = mcu_row * strip.v;
  const JDIMENSION rows = is_transposed_ ? from.width_in_blocks : from.height_in_blocks;
  strip.height = std::min(strip.v, rows - first);
  strip.rows =
      source_.mem->access_virt_barray(reinterpret_cast<j_common_ptr>(&source_),
                                      coefficients_[component], first, strip.height, FALSE);
  return strip;
}

void Transcoder::set_table(JHUFF_TBL** table, const SymbolCounts& counts) {
  HuffmanCode code;
  build_code(counts, &code);
  if (*table == nullptr) *table = jpeg_alloc_huff_table(reinterpret_cast<j_common_ptr>(&target_));
  static_assert(sizeof(*table)->bits == sizeof code.num_of_length);
  std::memcpy((*table)->bits, code.num_of_length, sizeof code.num_of_length);
  std::memcpy((*table)->huffval, code.symbols, sizeof code.symbols);
  (*table)->sent_table = FALSE;
}

// Counts in the order in which libjpeg writes. Where an MCU passes the picture's right or lower
// border, it writes blocks that repeat the DC coefficient before them and nothing else.
bool Transcoder::count_symbols(int interval, SymbolCounts* dc, SymbolCounts* ac) {
  const int num = target_.num_components;
  int max_h = 1, max_v = 1, last_dc[MAX_COMPONENTS] = {};
  for (int i = 0; num > 1 && i < num; ++i) {
    max_h = std::max(max_h, target_.comp_info[i].h_samp_factor);
    max_v = std::max(max_v, target_.comp_info[i].v_samp_factor);
  }
  const JDIMENSION across = (target_.image_width + 8 * max_h - 1) / (8 * max_h);
  const JDIMENSION down = (target_.image_height + 8 * max_v - 1) / (8 * max_v);
  int to_restart = interval;
  for (JDIMENSION y = 0; y < down; ++y) {
    Strip strips[MAX_COMPONENTS];
    for (int i = 0; i < num; ++i) strips[i] = open_strip(i, y);
    for (JDIMENSION x = 0; x < across; ++x) {
      if (to_restart-- == 0) {
        std::memset(last_dc, 0, sizeof last_dc);
        to_restart = interval - 1;
      }
      for (int i = 0; i < num; ++i) {
        const jpeg_component_info& info = target_.comp_info[i];
        SymbolCounts* own_dc = &dc[info.dc_tbl_no];
        SymbolCounts* own_ac = &ac[info.ac_tbl_no];
        const Strip& strip = strips[i];
        for (JDIMENSION k = 0; k < strip.h * strip.v; ++k) {
          const JDIMENSION column = x * strip.h + k % strip.h, row = k / strip.h;
          if (column >= strip.width || row >= strip.height) {
            ++own_dc->of[0];
            ++own_ac->of[0];
            continue;
          }
          const JCOEF* block = strip.rows[row][column];
          if (!count_block(block, last_dc[i], own_dc, own_ac)) return false;
          last_dc[i] = block[0];
        }
      }
    }
  }
  return true;
}

// Gives the target the tables of the fewest bits. libjpeg could do it, but takes five times as long
// to count as this does.
bool Transcoder::fit_tables(int interval) {
  SymbolCounts dc[NUM_HUFF_TBLS] = {}, ac[NUM_HUFF_TBLS] = {};
  if (!count_symbols(interval, dc, ac)) return false;
  for (int i = 0; i < target_.num_components; ++i) {
    const jpeg_component_info& info = target_.comp_info[i];
    set_table(&target_.dc_huff_tbl_ptrs[info.dc_tbl_no], dc[info.dc_tbl_no]);
    set_table(&target_.ac_huff_tbl_ptrs[info.ac_tbl_no], ac[info.ac_tbl_no]);
  }
  return true;
}

bool Transcoder::write(const Layout& layout, int interval) {
  target_.err = source_.err;
  jpeg_create_compress(&target_);
  output_.base.init_destination = grow;
  output_.base.empty_output_buffer = on_full;
  output_.base.term_destination = on_term;
  target_.dest = &output_.base;
  jpeg_copy_critical_parameters(&source_, &target_);
  const Turn turn = find_turn(layout.orientation);
  const bool is_turned = layout.orientation != 1 && is_exact(turn, layout);
  is_transposed_ = is_turned && turn.transpose;
  if (is_transposed_) turn_tables();
  if (is_turned) turn_blocks(turn);
  // libjpeg would write these as it thinks fit; the colours depend on them.
  target_.write_JFIF_header = layout.has_jfif ? TRUE : FALSE;
  target_.write_Adobe_marker = FALSE;
  if (!fit_tables(interval)) return false;
  target_.optimize_coding = FALSE;
  target_.arith_code = FALSE;
  target_.restart_in_rows = 0;
  target_.restart_interval = static_cast<unsigned>(interval);
  jpeg_write_coefficients(&target_, coefficients_);
  write_markers(is_turned ? 1 : layout.orientation);
  jpeg_finish_compress(&target_);
  return true;
}

// Whether the header of what was written is what it should be.
bool Transcoder::has_wanted_header(const Layout& before, const Layout& written) const {
  const bool is_alike =
      written.num_components == target_.num_components && written.is_baseline &&
      static_cast<JDIMENSION>(written.width) == target_.image_width &&
      static_cast<JDIMENSION>(written.height) == target_.image_height &&
      static_cast<unsigned>(written.restart_interval) == target_.restart_interval &&
      // With the components' names all that decoders choose colours by.
      written.has_jfif == before.has_jfif && written.adobe_transform == before.adobe_transform;
  for (int i = 0; is_alike && i < target_.num_components; ++i) {
    const Component& component = written.components[i];
    const jpeg_component_info& wanted = target_.comp_info[i];
    if (component.id != wanted.component_id || component.h != wanted.h_samp_factor ||
        component.v != wanted.v_samp_factor) {
      return false;
    }
  }
  return is_alike;
}

// Finds what should be in the file that was written; `planes` has room for all rows.
Status Transcoder::list_planes(std::vector<WantedPlane>* planes) {
  if (setjmp(errors_.jump)) return errors_.status;
  for (int i = 0; i < source_.num_components; ++i) {
    WantedPlane& plane = (*planes)[i];
    for (JDIMENSION y = 0; y < plane.rows.size(); ++y) {
      // Rows stay where they are: libjpeg-turbo knows no memory but that of the process.
      plane.rows[y] = source_.mem->access_virt_barray(reinterpret_cast<j_common_ptr>(&source_),
                                                      coefficients_[i], y, 1, FALSE)[0][0];
    }
  }
  return Status::ok;
}

// Reads what was written and compares it with what should be in it.
Status Transcoder::check(const Layout& before) {
  Layout written;
  std::vector<uint32_t> offsets;
  Status status = parse(data(), size(), &written);
  if (status != Status::ok) return status;
  status = find_segments(data(), size(), written, &offsets);
  if (status != Status::ok) return status;
  if (!has_wanted_header(before, written)) return Status::corrupt;
  std::vector<WantedPlane> planes(source_.num_components);
  for (int i = 0; i < source_.num_components; ++i) {
    const jpeg_component_info& from = source_.comp_info[i];
    const JDIMENSION down = is_transposed_ ? from.width_in_blocks : from.height_in_blocks;
    planes[i].steps = target_.quant_tbl_ptrs[target_.comp_info[i].quant_tbl_no]->quantval;
    planes[i].width = is_transposed_ ? from.height_in_blocks : from.width_in_blocks;
    planes[i].rows.resize(down);
  }
  status = list_planes(&planes);
  if (status != Status::ok) return status;
  return std::make_unique<TileComparer>()->compare(data(), written, offsets, planes);
}

// Memory for the coefficients is bounded before libjpeg takes it.
Status check_size(const Layout& layout, size_t size) {
  const uint64_t blocks = static_cast<uint64_t>(count_mcus(layout)) * layout.blocks_per_mcu;
  // A block takes a bit at the very least, so a small file cannot ask for much.
  if (blocks > 8 * static_cast<uint64_t>(size)) return Status::corrupt;
  return blocks * sizeof(JBLOCK) > kMaxCoefficientBytes ? Status::too_large : Status::ok;
}

}  // namespace

int32_t choose_interval(const Layout& layout, size_t entropy_bytes) {
  // The marker, half a byte of padding, and DC coefficients that begin anew: 4.0 bytes a restart,
  // as measured on 300 ImageNet photographs.
  constexpr uint64_t kBytesPerRestart = 4, kShare = 50;
  const auto row = static_cast<uint64_t>(layout.mcus_per_row);
  const uint64_t cost = kBytesPerRestart * kShare * static_cast<uint64_t>(count_mcus(layout));
  const uint64_t bytes = std::max<uint64_t>(entropy_bytes, 1);
  const uint64_t least = (cost + bytes - 1) / bytes;
  if (least >= row) return layout.mcus_per_row;
  for (uint64_t interval = least; interval <= 2 * least; ++interval) {
    if (row % interval == 0) return static_cast<int32_t>(interval);
  }
  return static_cast<int32_t>(least);
}

Status transcode(const uint8_t* data, size_t size, int32_t interval, std::vector<uint8_t>* out) {
  out->clear();
  Layout layout;
  Status status = parse(data, size, &layout);
  if (status != Status::ok) return status;
  const bool is_huffman = layout.frame >= 0xC0 && layout.frame <= 0xC2;
  if (!is_huffman || layout.precision != 8 || layout.blocks_per_mcu > kMaxBlocksPerMcu ||
      interval < 0 || interval > 0xFFFF) {
    return Status::unsupported;
  }
  status = check_size(layout, size);
  if (status != Status::ok) return status;
  Layout stored = layout;
  const Turn turn = find_turn(layout.orientation);
  if (turn.transpose && is_exact(turn, layout)) {
    std::swap(stored.mcus_per_row, stored.mcu_rows);
  }
  if (interval == 0) interval = choose_interval(stored, size - layout.entropy_begin);
  Transcoder transcoder;
  status = transcoder.run(data, size, layout, interval);
  if (status != Status::ok) return status;
  try {
    status = transcoder.check(layout);
    if (status == Status::ok) {
      out->assign(transcoder.data(), transcoder.data() + transcoder.size());
    }
  } catch (const std::bad_alloc&) {
    return Status::no_memory;
  }
  return status;
}

}  // namespace fastssl::jpeg
