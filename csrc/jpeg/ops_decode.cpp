// The operator that fastssl/ops/jpeg.py calls.
#include <ATen/ATen.h>
#include <torch/library.h>

#include <cstdint>
#include <tuple>
#include <vector>

#include "jpeg/decode.h"

namespace {

using fastssl::jpeg::Counters;
using fastssl::jpeg::Dct;
using fastssl::jpeg::Decoder;
using fastssl::jpeg::Status;
using fastssl::jpeg::ViewBox;

// Returns the views (V, side, side, 3), and (status, MCUs entropy decoded, MCUs in all, bytes
// copied, factor of the reduction).
std::tuple<at::Tensor, std::vector<int64_t>> decode_views(const at::Tensor& data,
                                                          const at::Tensor& views, int64_t side,
                                                          bool is_scaled) {
  TORCH_CHECK_VALUE(data.scalar_type() == at::kByte && data.dim() == 1 && data.is_contiguous(),
                    "data must be a contiguous uint8 tensor of one dimension, got ",
                    data.scalar_type(), " of ", data.dim());
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
  const Status status = decoder.decode_views(
      data.const_data_ptr<uint8_t>(), static_cast<size_t>(data.numel()), boxes.data(),
      static_cast<int32_t>(num_views), static_cast<int32_t>(side),
      is_scaled ? Dct::scaled : Dct::exact, out.mutable_data_ptr<uint8_t>(), &counters, &factor);
  return {out,
          {static_cast<int64_t>(status), static_cast<int64_t>(counters.entropy_decoded_mcus),
           static_cast<int64_t>(counters.total_mcus), static_cast<int64_t>(counters.bytes_copied),
           factor}};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(fastssl, m) {
  m.def("decode_views(Tensor data, Tensor views, int side, bool is_scaled) -> (Tensor, int[])");
}

TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("decode_views", &decode_views); }
