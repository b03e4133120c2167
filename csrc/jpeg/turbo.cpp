#include "jpeg/turbo.h"

#include <csetjmp>
#include <cstdio>
#include <cstring>
#include <new>

// After <cstdio>: jpeglib.h uses FILE and size_t without declaring them.
#include <jerror.h>
#include <jpeglib.h>

namespace fastssl::jpeg {
namespace {

// Programs write about ten scans, and each goes over every block: 400 KB may keep a thread busy for
// minutes. As many as the reference decoder takes.
constexpr int kMaxScans = 100;

struct ErrorManager {
  jpeg_error_mgr base;  // First: libjpeg hands back a pointer to it.
  jmp_buf jump;
  Status status;
};

[[noreturn]] void leave(j_common_ptr info, Status status) {
  auto* errors = reinterpret_cast<ErrorManager*>(info->err);
  errors->status = status;
  longjmp(errors->jump, 1);
}

[[noreturn]] void on_error(j_common_ptr info) {
  switch (info->err->msg_code) {
    case JERR_OUT_OF_MEMORY:
      leave(info, Status::no_memory);
    case JERR_IMAGE_TOO_BIG:
    case JERR_WIDTH_OVERFLOW:
      leave(info, Status::too_large);
    case JERR_ARITH_NOTIMPL:
    case JERR_BAD_PRECISION:
    case JERR_CCIR601_NOTIMPL:
    case JERR_CONVERSION_NOTIMPL:
    case JERR_FRACT_SAMPLE_NOTIMPL:
    case JERR_NOTIMPL:
    case JERR_NOT_COMPILED:
    case JERR_SOF_UNSUPPORTED:
      leave(info, Status::unsupported);
    default:
      leave(info, Status::corrupt);
  }
}

// Warnings (level -1) tell of damage that libjpeg papers over; traces (0 and above) of nothing.
void on_message(j_common_ptr info, int level) {
  if (level < 0) {
    leave(info, info->err->msg_code == JWRN_JPEG_EOF ? Status::truncated : Status::corrupt);
  }
}

// Called for every row of MCUs.
void on_progress(j_common_ptr info) {
  if (reinterpret_cast<j_decompress_ptr>(info)->input_scan_number > kMaxScans) {
    leave(info, Status::too_large);
  }
}

}  // namespace

struct TurboDecoder::Impl {
  jpeg_decompress_struct info;
  ErrorManager errors;
  jpeg_progress_mgr progress;
  std::vector<uint8_t*> rows;
  bool is_created = false;

  void create();
  void destroy();
  // The steps of a decode; each may leave by longjmp, so none owns anything.
  Status read_header(const uint8_t* data, size_t size, int32_t factor);
  bool can_limit_columns() const;
  void crop(const Rect& wanted, Rect* decoded);
  void skip_and_read(const Rect& decoded);
};

TurboDecoder::TurboDecoder() : impl_(new Impl) {
  impl_->info = {};
  impl_->info.err = jpeg_std_error(&impl_->errors.base);
  impl_->errors.base.error_exit = on_error;
  impl_->errors.base.emit_message = on_message;
  impl_->progress = {};
  impl_->progress.progress_monitor = on_progress;
}

TurboDecoder::~TurboDecoder() { impl_->destroy(); }

// A libjpeg object keeps its tables for the next file, which would then be decoded by the last
// one's where it brings none of its own: every file gets a new object.
void TurboDecoder::Impl::create() {
  destroy();
  jpeg_create_decompress(&info);
  info.progress = &progress;
  is_created = true;
}

void TurboDecoder::Impl::destroy() {
  if (is_created) {
    jpeg_destroy_decompress(&info);
  }
  is_created = false;
}

Status TurboDecoder::Impl::read_header(const uint8_t* data, size_t size, int32_t factor) {
  jpeg_mem_src(&info, data, size);
  jpeg_read_header(&info, TRUE);
  if (info.num_components != 1 && info.num_components != 3) {
    return Status::unsupported;
  }
  info.out_color_space = JCS_RGB;
  info.dct_method = JDCT_ISLOW;
  info.do_fancy_upsampling = TRUE;
  info.scale_num = 1;
  info.scale_denom = static_cast<unsigned int>(factor);
  jpeg_start_decompress(&info);
  return Status::ok;
}

// Whether jpeg_crop_scanline counts samples right. In a reduced picture it forgets that the blocks
// of a component may be reduced less than others, which shows where that is upsampled all the same
// (4:1:0).
bool TurboDecoder::Impl::can_limit_columns() const {
  for (int i = 0; i < info.num_components; ++i) {
    const jpeg_component_info& component = info.comp_info[i];
    const JDIMENSION max_h = info.max_h_samp_factor;
    const JDIMENSION counted = (info.output_width * component.h_samp_factor + max_h - 1) / max_h;
    if (component.downsampled_width != counted &&
        component.downsampled_width != info.output_width) {
      return false;
    }
  }
  return true;
}

// Limits the columns. A column at the edge of what is decoded is computed from fewer neighbours
// than it has in the whole picture, so some more are decoded on both sides.
void TurboDecoder::Impl::crop(const Rect& wanted, Rect* decoded) {
  const int32_t width = static_cast<int32_t>(info.output_width);
  const int32_t height = static_cast<int32_t>(info.output_height);
  const int32_t margin_x = 2 * info.max_h_samp_factor;
  // Rows that a row of MCUs becomes.
  const int32_t step = DCTSIZE * info.max_v_samp_factor / static_cast<int32_t>(info.scale_denom);
  const int32_t margin_y = 2 * step;
  *decoded = {std::max(0, wanted.left - margin_x), std::max(0, wanted.top - margin_y),
              std::min(width, wanted.right + margin_x), wanted.bottom};
  if (!can_limit_columns()) {
    decoded->left = 0;
    decoded->right = width;
  } else if (decoded->width() < width) {
    JDIMENSION left = decoded->left;
    JDIMENSION columns = decoded->width();
    jpeg_crop_scanline(&info, &left, &columns);
    decoded->left = static_cast<int32_t>(left);
    decoded->right = static_cast<int32_t>(left + columns);
  }
  // Skipping ends at a row of MCUs, or libjpeg decodes and drops rows one by one.
  decoded->top = std::min(decoded->top / step * step, height - 1);
}

void TurboDecoder::Impl::skip_and_read(const Rect& decoded) {
  if (decoded.top > 0) {
    jpeg_skip_scanlines(&info, decoded.top);
  }
  const JDIMENSION bottom = decoded.bottom;
  while (info.output_scanline < bottom) {
    const JDIMENSION done = info.output_scanline - decoded.top;
    jpeg_read_scanlines(&info, &rows[done], bottom - info.output_scanline);
  }
}

Status TurboDecoder::decode(const uint8_t* data, size_t size, const Rect& wanted, int32_t factor,
                            std::vector<uint8_t>* rgb, Pixels* picture, int32_t* rows_read) try {
  Impl& self = *impl_;
  jpeg_decompress_struct& info = self.info;
  // Whoever leaves by longjmp comes back here; memory is only taken outside of libjpeg's calls, and
  // what is owned lives in members.
  Rect decoded;
  if (setjmp(self.errors.jump) != 0) {
    self.destroy();
    return self.errors.status;
  }
  self.create();
  Status status = self.read_header(data, size, factor);
  if (status == Status::ok && (wanted.right > static_cast<int32_t>(info.output_width) ||
                               wanted.bottom > static_cast<int32_t>(info.output_height))) {
    status = Status::corrupt;
  }
  if (status != Status::ok) {
    self.destroy();
    return status;
  }
  self.crop(wanted, &decoded);
  const ptrdiff_t stride = ptrdiff_t{3} * decoded.width();
  const size_t needed = static_cast<size_t>(stride) * decoded.height() + kReadPast;
  if (rgb->size() < needed) {
    rgb->resize(needed);
  }
  self.rows.resize(decoded.height());
  for (int32_t y = 0; y < decoded.height(); ++y) {
    self.rows[y] = rgb->data() + y * stride;
  }
  self.skip_and_read(decoded);
  *rows_read = static_cast<int32_t>(info.input_iMCU_row) * info.max_v_samp_factor * DCTSIZE;
  // The rows below are not wanted.
  self.destroy();
  *picture = {rgb->data() + (wanted.top - decoded.top) * stride +
                  ptrdiff_t{3} * (wanted.left - decoded.left),
              stride, wanted.width(), wanted.height()};
  return Status::ok;
} catch (const std::bad_alloc&) {
  impl_->destroy();
  return Status::no_memory;
}

}  // namespace fastssl::jpeg
