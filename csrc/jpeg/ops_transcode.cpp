// The operators that fastssl/shards/tiled.py calls. What may happen to hostile bytes is a status,
// never an exception.

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cstdint>
#include <cstring>
#include <tuple>
#include <vector>

#include "jpeg/parse.h"
#include "jpeg/transcode.h"

namespace {

using fastssl::jpeg::Layout;
using fastssl::jpeg::Status;

void check_bytes(const at::Tensor& data) {
  TORCH_CHECK(data.scalar_type() == at::kByte && data.dim() == 1 && data.is_contiguous(),
              "data must be a contiguous uint8 tensor of one dimension, got ", data.scalar_type(),
              " of ", data.dim());
}

// Returns the status, and the new file or nothing.
std::tuple<int64_t, at::Tensor> transcode_jpeg(const at::Tensor& data, int64_t interval) {
  check_bytes(data);
  TORCH_CHECK(interval >= 0 && interval <= 0xFFFF, "interval must lie in 0 .. 65535, got ",
              interval);
  std::vector<uint8_t> out;
  const Status status =
      fastssl::jpeg::transcode(data.const_data_ptr<uint8_t>(), static_cast<size_t>(data.numel()),
                               static_cast<int32_t>(interval), &out);
  at::Tensor result = at::empty({static_cast<int64_t>(out.size())}, at::kByte);
  if (!out.empty()) std::memcpy(result.mutable_data_ptr<uint8_t>(), out.data(), out.size());
  return {static_cast<int64_t>(status), result};
}

// Returns the status of parse, some fields of the layout, the status of find_segments, and where
// the segments begin.
std::tuple<int64_t, std::vector<int64_t>, int64_t, at::Tensor> parse_jpeg(const at::Tensor& data) {
  check_bytes(data);
  const auto* bytes = data.const_data_ptr<uint8_t>();
  const auto size = static_cast<size_t>(data.numel());
  Layout layout;
  std::vector<uint32_t> offsets;
  const Status status = fastssl::jpeg::parse(bytes, size, &layout);
  Status followed = status;
  if (status == Status::ok) {
    followed = fastssl::jpeg::find_segments(bytes, size, layout, &offsets);
  }
  at::Tensor starts = at::empty({static_cast<int64_t>(offsets.size())}, at::kLong);
  std::copy(offsets.begin(), offsets.end(), starts.mutable_data_ptr<int64_t>());
  // In the order of fastssl.shards.tiled.JpegLayout.
  std::vector<int64_t> fields = {layout.width,
                                 layout.height,
                                 layout.num_components,
                                 layout.mcu_width,
                                 layout.mcu_height,
                                 layout.mcus_per_row,
                                 layout.mcu_rows,
                                 layout.blocks_per_mcu,
                                 layout.precision,
                                 layout.restart_interval,
                                 layout.orientation,
                                 layout.frame,
                                 layout.num_scans,
                                 static_cast<int64_t>(layout.entropy_begin),
                                 static_cast<int64_t>(layout.entropy_end)};
  return {static_cast<int64_t>(status), fields, static_cast<int64_t>(followed), starts};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(fastssl, m) {
  m.def("transcode_jpeg(Tensor data, int interval) -> (int, Tensor)");
  m.def("parse_jpeg(Tensor data) -> (int, int[], int, Tensor)");
}

TORCH_LIBRARY_IMPL(fastssl, CPU, m) {
  m.impl("transcode_jpeg", &transcode_jpeg);
  m.impl("parse_jpeg", &parse_jpeg);
}
