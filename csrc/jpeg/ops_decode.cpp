// The operator that fastssl/ops/jpeg.py calls.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "jpeg/crc32.h"
#include "jpeg/decode.h"

namespace {

using fastssl::jpeg::Counters;
using fastssl::jpeg::Dct;
using fastssl::jpeg::Decoder;
using fastssl::jpeg::EntryRecord;
using fastssl::jpeg::Status;
using fastssl::jpeg::ViewBox;

// Returns the views (V, side, side, 3), and (status, MCUs entropy decoded, MCUs in all, bytes
// copied, factor of the reduction, whether the record of entry points was refused).
std::tuple<at::Tensor, std::vector<int64_t>> decode_views(const at::Tensor& data,
                                                          const at::Tensor& views, int64_t side,
                                                          bool is_scaled,
                                                          const at::Tensor& record) {
  TORCH_CHECK_VALUE(data.scalar_type() == at::kByte && data.dim() == 1 && data.is_contiguous(),
                    "data must be a contiguous uint8 tensor of one dimension, got ",
                    data.scalar_type(), " of ", data.dim());
  TORCH_CHECK_VALUE(
      record.scalar_type() == at::kByte && record.dim() == 1 && record.is_contiguous(),
      "record must be a contiguous uint8 tensor of one dimension, got ", record.scalar_type(),
      " of ", record.dim());
  TORCH_CHECK_VALUE(views.scalar_type() == at::kInt && views.dim() == 2 && views.size(1) == 9 &&
                        views.is_contiguous(),
                    "views must be a contiguous int32 (V, 9), got ", views.scalar_type(), " ",
                    views.sizes());
  TORCH_CHECK_VALUE(side >= 1 && side <= 65535, "side must lie in 1 .. 65535, got ", side);
  const int64_t num_views = views.size(0);
  std::vector<ViewBox> boxes(num_views);
  const int32_t* row = views.const_data_ptr<int32_t>();
  for (ViewBox& box : boxes) {
    box = {row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7], row[8]};
    row += 9;
  }
  at::Tensor out = at::empty({num_views, side, side, 3}, at::kByte);
  // One for each thread that calls: its scratch stays warm.
  static thread_local Decoder decoder;
  Counters counters;
  int32_t factor = 1;
  const auto* bytes = data.const_data_ptr<uint8_t>();
  const auto size = static_cast<size_t>(data.numel());
  EntryRecord entries = {record.const_data_ptr<uint8_t>(), static_cast<size_t>(record.numel()), 0};
  if (entries.size > 0) {
    entries.payload_crc = fastssl::jpeg::crc32(bytes, size);
  }
  const Status status =
      decoder.decode_views(bytes, size, boxes.data(), static_cast<int32_t>(num_views),
                           static_cast<int32_t>(side), is_scaled ? Dct::scaled : Dct::exact,
                           out.mutable_data_ptr<uint8_t>(), &counters, &factor, 0, 0, entries);
  return {out,
          {static_cast<int64_t>(status), static_cast<int64_t>(counters.entropy_decoded_mcus),
           static_cast<int64_t>(counters.total_mcus), static_cast<int64_t>(counters.bytes_copied),
           factor, static_cast<int64_t>(counters.records_refused)}};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(fastssl, m) {
  m.def(
      "decode_views(Tensor data, Tensor views, int side, bool is_scaled, Tensor record) -> "
      "(Tensor, int[])");
}

TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("decode_views", &decode_views); }
