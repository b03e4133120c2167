// What loaders/native.py drives: the pool of threads as a class of torch's, and CRC-32.
#include <ATen/ATen.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "jpeg/crc32.h"
#include "jpeg/pool.h"

namespace fastssl::jpeg {
namespace {

constexpr int64_t kRowFields = 10;  // Those of Row, in the order that submit names.
constexpr int64_t kViewFields = 9;  // Those of ViewBox.

void check_dense(const at::Tensor& tensor, const char* name, at::ScalarType dtype,
                 at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(tensor.scalar_type() == dtype && tensor.sizes() == shape &&
                        tensor.is_contiguous() && tensor.device().is_cpu(),
                    name, " must be contiguous ", dtype, " ", shape, " on the CPU, got ",
                    tensor.scalar_type(), " ", tensor.sizes());
}

// Torch releases Python's lock around every call, so waiting here stops nobody.
class DecodePool : public torch::CustomClassHolder {
 public:
  // entry_points: the path of their file; empty if there is none.
  DecodePool(std::vector<std::string> paths, std::string entry_points, int64_t num_threads,
             int64_t max_open_shards, bool is_scaled)
      : num_shards_(static_cast<int64_t>(paths.size())),
        has_records_(!entry_points.empty()),
        dct_(is_scaled ? Dct::scaled : Dct::exact),
        pool_(join(std::move(paths), std::move(entry_points)), static_cast<int>(num_threads),
              static_cast<size_t>(max_open_shards)) {}

  // rows (R, 10): shard, offset, length, CRC-32, kind, width, height, row of `out` to fill, offset
  // and length of its entry points.
  int64_t submit(const at::Tensor& rows, const at::Tensor& views, const at::Tensor& out,
                 bool is_urgent) {
    const int64_t num_rows = rows.size(0);
    const int64_t num_views = views.dim() == 3 ? views.size(1) : 0;
    check_dense(rows, "rows", at::kLong, {num_rows, kRowFields});
    check_dense(views, "views", at::kInt, {num_rows, num_views, kViewFields});
    const int64_t side = out.dim() == 5 ? out.size(2) : 0;
    check_dense(out, "out", at::kByte, {out.size(0), num_views, side, side, 3});
    auto job = std::make_shared<Job>();
    job->num_views = static_cast<int32_t>(num_views);
    job->side = static_cast<int32_t>(side);
    job->dct = dct_;
    job->out = out.mutable_data_ptr<uint8_t>();
    const int64_t* fields = rows.const_data_ptr<int64_t>();
    for (int64_t i = 0; i < num_rows; ++i, fields += kRowFields) {
      job->rows.push_back(read_row(fields, out.size(0)));
    }
    job->views.resize(num_rows * num_views);
    static_assert(sizeof(ViewBox) == kViewFields * sizeof(int32_t));
    if (!job->views.empty()) {
      std::memcpy(job->views.data(), views.const_data_ptr<int32_t>(),
                  job->views.size() * sizeof(ViewBox));
    }
    pool_.submit(job, is_urgent);
    const std::lock_guard<std::mutex> lock(mutex_);
    tasks_[++last_ticket_] = {job, out};
    return last_ticket_;
  }

  bool wait(int64_t ticket, int64_t timeout_ms) { return pool_.wait(*find(ticket), timeout_ms); }

  // (R, 2): status and detail of every row of a job that is done.
  at::Tensor results(int64_t ticket) {
    const auto job = find_done(ticket);
    at::Tensor table = at::empty({static_cast<int64_t>(job->results.size()), 2}, at::kLong);
    int64_t* cell = table.mutable_data_ptr<int64_t>();
    for (const RowResult& result : job->results) {
      *cell++ = static_cast<int64_t>(result.status);
      *cell++ = result.detail;
    }
    return table;
  }

  // The bytes of a row that was refused or handed over.
  at::Tensor payload(int64_t ticket, int64_t row) {
    const auto job = find_done(ticket);
    TORCH_CHECK_INDEX(row >= 0 && row < static_cast<int64_t>(job->results.size()), "row ", row,
                      " must lie in 0 .. ", job->results.size());
    const std::vector<uint8_t>& kept = job->results[row].payload;
    at::Tensor bytes = at::empty({static_cast<int64_t>(kept.size())}, at::kByte);
    if (!kept.empty()) {
      std::memcpy(bytes.mutable_data_ptr<uint8_t>(), kept.data(), kept.size());
    }
    return bytes;
  }

  // Nanoseconds of reading, checking and decoding; MCUs entropy decoded, and in all; samples whose
  // entry points were refused.
  std::vector<int64_t> cost(int64_t ticket) {
    const auto job = find_done(ticket);
    const Cost& cost = job->cost;
    return {cost.read_ns,
            cost.check_ns,
            cost.decode_ns,
            static_cast<int64_t>(cost.entropy_decoded_mcus.load()),
            static_cast<int64_t>(cost.total_mcus.load()),
            static_cast<int64_t>(cost.records_refused.load())};
  }

  void forget(int64_t ticket) {
    const std::lock_guard<std::mutex> lock(mutex_);
    tasks_.erase(ticket);
  }

  void stop() {
    is_stopped_ = true;
    pool_.stop();
  }

  bool is_stopped() const { return is_stopped_; }

 private:
  static std::vector<std::string> join(std::vector<std::string> paths, std::string entry_points) {
    if (!entry_points.empty()) {
      paths.push_back(std::move(entry_points));
    }
    return paths;
  }

  Row read_row(const int64_t* fields, int64_t num_places) const {
    const int64_t shard = fields[0];
    const int64_t length = fields[2];
    const int64_t place = fields[7];
    TORCH_CHECK_VALUE(shard >= 0 && shard < num_shards_, "shard ", shard, " must lie in 0 .. ",
                      num_shards_ - 1);
    TORCH_CHECK_VALUE(length >= 0 && length <= std::numeric_limits<int32_t>::max(), "length ",
                      length, " must lie in 0 .. 2**31 - 1 bytes");
    TORCH_CHECK_VALUE(place >= 0 && place < num_places, "place ", place, " must lie in 0 .. ",
                      num_places - 1);
    const int64_t record_length = has_records_ ? fields[9] : 0;
    TORCH_CHECK_VALUE(record_length >= 0 && record_length <= std::numeric_limits<int32_t>::max(),
                      "length ", record_length,
                      " of entry points must lie in 0 .. 2**31 - 1 bytes");
    TORCH_CHECK_VALUE(fields[4] >= 0 && fields[4] <= 2, "kind ", fields[4], " must lie in 0 .. 2");
    Row row{};
    row.shard = static_cast<int32_t>(shard);
    row.offset = fields[1];
    row.length = static_cast<uint32_t>(length);
    row.crc = static_cast<uint32_t>(fields[3]);
    row.kind = static_cast<Kind>(fields[4]);
    row.width = static_cast<int32_t>(fields[5]);
    row.height = static_cast<int32_t>(fields[6]);
    row.place = static_cast<int32_t>(place);
    row.record_offset = fields[8];
    row.record_length = static_cast<uint32_t>(record_length);
    return row;
  }

  std::shared_ptr<Job> find(int64_t ticket) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = tasks_.find(ticket);
    TORCH_CHECK_INDEX(found != tasks_.end(), "ticket ", ticket, " is not of a job");
    return found->second.job;
  }

  std::shared_ptr<Job> find_done(int64_t ticket) {
    auto job = find(ticket);
    TORCH_CHECK(job->num_left == 0, "job ", ticket, " is not done; wait for it");
    return job;
  }

  struct Task {
    std::shared_ptr<Job> job;
    at::Tensor out;  // Kept for the job, which has its address; the pool's threads know no tensor.
  };

  const int64_t num_shards_;
  const bool has_records_;
  const Dct dct_;
  std::atomic<bool> is_stopped_{false};
  std::mutex mutex_;
  std::unordered_map<int64_t, Task> tasks_;
  int64_t last_ticket_ = 0;
  Pool pool_;  // The last, so that its threads end before the tensors go that they fill.
};

int64_t checksum(const at::Tensor& data, bool by_tables) {
  check_dense(data, "data", at::kByte, {data.numel()});
  const auto* bytes = data.const_data_ptr<uint8_t>();
  const auto size = static_cast<size_t>(data.numel());
  return by_tables ? crc32_by_tables(bytes, size) : crc32(bytes, size);
}

}  // namespace
}  // namespace fastssl::jpeg

TORCH_LIBRARY_FRAGMENT(fastssl, m) {
  using fastssl::jpeg::DecodePool;
  m.class_<DecodePool>("DecodePool")
      .def(torch::init<std::vector<std::string>, std::string, int64_t, int64_t, bool>())
      .def("submit", &DecodePool::submit)
      .def("wait", &DecodePool::wait)
      .def("results", &DecodePool::results)
      .def("payload", &DecodePool::payload)
      .def("cost", &DecodePool::cost)
      .def("forget", &DecodePool::forget)
      .def("stop", &DecodePool::stop)
      .def("is_stopped", &DecodePool::is_stopped);
  m.def("crc32(Tensor data, bool by_tables) -> int");
}

TORCH_LIBRARY_IMPL(fastssl, CPU, m) { m.impl("crc32", &fastssl::jpeg::checksum); }
