#include "jpeg/pool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <new>
#include <utility>

#include "jpeg/crc32.h"
#include "jpeg/resample.h"

namespace fastssl::jpeg {
namespace {

using Clock = std::chrono::steady_clock;

// As fastssl/shards/reader.py reads: READ_TRIES, and RETRY_WAIT_S of a disk, each later pause four
// times as long.
constexpr int kReadTries = 3;
constexpr auto kRetryWait = std::chrono::milliseconds(50);
constexpr auto kStopWait = std::chrono::seconds(2);

// Opens what is a file: who opens a pipe waits until somebody writes to it.
int open_regular(const char* path, int* error) {
  struct stat found;
  *error = ::stat(path, &found) < 0 ? errno : S_ISREG(found.st_mode) ? 0 : EINVAL;
  if (*error != 0) {
    return -1;
  }
  const int descriptor = ::open(path, O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    *error = errno;
  } else if (::fstat(descriptor, &found) < 0 || !S_ISREG(found.st_mode)) {
    ::close(descriptor);  // It was replaced between the two.
    *error = EINVAL;
    return -1;
  }
  return descriptor;
}

// Adds the time since the last call to a sum.
class StopWatch {
 public:
  void add_to(std::atomic<int64_t>* sum) {
    const auto now = Clock::now();
    sum->fetch_add(std::chrono::duration_cast<std::chrono::nanoseconds>(now - began_).count(),
                   std::memory_order_relaxed);
    began_ = now;
  }

 private:
  Clock::time_point began_ = Clock::now();
};

// Where the pixels of NumPy's format begin, or 0 if the bytes are not (height, width, 3) of uint8
// as every NumPy writes it; the reference decoder reads what else is allowed.
size_t find_raw_pixels(const uint8_t* data, const Row& row) {
  constexpr size_t kPrefix = 10;  // Magic, version, and two bytes of length.
  const size_t num_bytes = static_cast<size_t>(row.width) * row.height * 3;
  if (row.length < kPrefix || std::memcmp(data, "\x93NUMPY\x01", 7) != 0) {
    return 0;
  }
  const size_t start = kPrefix + data[8] + 256 * static_cast<size_t>(data[9]);
  char header[96];
  const int length = std::snprintf(
      header, sizeof(header), "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, %d, 3), }",
      row.height, row.width);
  if (start + num_bytes != row.length || start < kPrefix + length ||
      std::memcmp(data + kPrefix, header, length) != 0) {
    return 0;
  }
  const auto is_blank = [](uint8_t c) { return c == ' ' || c == '\n'; };
  return std::all_of(data + kPrefix + length, data + start, is_blank) ? start : 0;
}

Status cut_raw(Resampler* resampler, const uint8_t* data, const Job& job, size_t index,
               uint8_t* out) {
  const Row& row = job.rows[index];
  const size_t start = find_raw_pixels(data, row);
  if (start == 0) {
    return Status::corrupt;
  }
  const Pixels picture{data + start, static_cast<ptrdiff_t>(row.width) * 3, row.width, row.height};
  const size_t view_bytes = static_cast<size_t>(job.side) * job.side * 3;
  for (int32_t v = 0; v < job.num_views; ++v) {
    const ViewBox& view = job.views[index * job.num_views + v];
    const Status status = resampler->cut_view(picture, view, job.side, out + v * view_bytes);
    if (status != Status::ok) {
      return status;
    }
  }
  return Status::ok;
}

}  // namespace

// ---- shards

class Shards::File {
 public:
  explicit File(int descriptor) : descriptor_(descriptor) {}
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int descriptor() const { return descriptor_; }

 private:
  const int descriptor_;
};

Shards::Shards(std::vector<std::string> paths, size_t max_open)
    : paths_(std::move(paths)), max_open_(max_open) {}

std::shared_ptr<Shards::File> Shards::find(int32_t shard) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = files_.find(shard);
  if (found == files_.end()) {
    return nullptr;
  }
  recent_.splice(recent_.begin(), recent_, found->second.place);
  return found->second.file;
}

std::shared_ptr<Shards::File> Shards::open(int32_t shard, int* error) {
  if (auto file = find(shard)) {
    return file;
  }
  // Without the lock: where a disk stalls, the other shards must stay in reach.
  const int descriptor = open_regular(paths_[shard].c_str(), error);
  if (descriptor < 0) {
    return nullptr;
  }
  auto file = std::make_shared<File>(descriptor);
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = files_.find(shard);
  if (found != files_.end()) {
    return found->second.file;  // Somebody was faster.
  }
  recent_.push_front(shard);
  files_[shard] = {file, recent_.begin()};
  if (files_.size() > max_open_) {
    files_.erase(recent_.back());
    recent_.pop_back();
  }
  return file;
}

void Shards::forget(int32_t shard) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = files_.find(shard);
  if (found != files_.end()) {
    recent_.erase(found->second.place);
    files_.erase(found);
  }
}

void Shards::announce(const Row& row) {
  int error = 0;
  if (const auto file = open(row.shard, &error)) {
    ::posix_fadvise(file->descriptor(), row.offset, row.length, POSIX_FADV_WILLNEED);
  }
}

void Shards::read(const Row& row, uint8_t* out, RowResult* result,
                  const std::atomic<bool>& stopping) {
  auto pause = kRetryWait;
  for (int tries = 0; tries < kReadTries; ++tries, forget(row.shard)) {
    if (tries > 0) {
      if (stopping) {
        return;
      }
      std::this_thread::sleep_for(pause);
      pause *= 4;
    }
    int error = 0;
    size_t filled = 0;
    if (const auto file = open(row.shard, &error)) {
      while (filled < row.length) {
        const ssize_t got = ::pread(file->descriptor(), out + filled, row.length - filled,
                                    row.offset + static_cast<int64_t>(filled));
        if (got < 0 && errno == EINTR) {
          continue;
        }
        if (got <= 0) {
          error = got < 0 ? errno : 0;
          break;
        }
        filled += static_cast<size_t>(got);
      }
    }
    if (filled == row.length && error == 0) {
      result->status = RowStatus::ok;
      return;
    }
    result->status = error != 0 ? RowStatus::unreadable : RowStatus::short_read;
    result->detail = error != 0 ? error : static_cast<int64_t>(filled);
  }
}

// ---- pool

// What threads share; they hold it, so that one that hangs outlives the pool.
struct Pool::State {
  State(std::vector<std::string> paths, size_t max_open) : shards(std::move(paths), max_open) {}

  Shards shards;
  std::mutex mutex;
  std::condition_variable has_work;
  std::condition_variable has_result;
  std::deque<std::shared_ptr<Job>> jobs;  // Those with rows that nobody has taken.
  std::atomic<bool> stopping{false};
  int num_running = 0;  // Threads that have not ended.
  int num_reading = 0;  // Those of them that a disk may hold up.

  // Takes a row that the system has not been told of; false where there is none. For a thread that
  // holds the lock.
  bool take_unannounced(Row* row) {
    for (const auto& job : jobs) {
      job->num_announced = std::max(job->num_announced, job->next);
      if (job->num_announced < job->rows.size()) {
        *row = job->rows[job->num_announced++];
        return true;
      }
    }
    return false;
  }
};

namespace {

// One thread's tools.
struct Bench {
  Decoder decoder;
  Resampler resampler;
  std::vector<uint8_t> payload;
  std::vector<uint8_t> record;  // Of the entry points.
};

// The place of a row's entry points, which lie in the last file.
Row find_record(const Row& row, const Shards& shards) {
  Row place{};
  place.shard = static_cast<int32_t>(shards.size()) - 1;
  place.offset = row.record_offset;
  place.length = row.record_length;
  return place;
}

// Reads a row's bytes into the thread's memory.
void read_row(Bench* bench, Shards* shards, Job* job, size_t index,
              const std::atomic<bool>& stopping) {
  const Row& row = job->rows[index];
  StopWatch watch;
  bench->payload.resize(row.length + kReadPast);
  shards->read(row, bench->payload.data(), &job->results[index], stopping);
  bench->record.resize(row.record_length);
  if (row.record_length > 0) {
    // What cannot be read is refused as what is damaged: its checksum is wrong.
    RowResult result;
    std::fill(bench->record.begin(), bench->record.end(), uint8_t{0});
    shards->read(find_record(row, *shards), bench->record.data(), &result, stopping);
  }
  watch.add_to(&job->cost.read_ns);
}

void decode_row(Bench* bench, Job* job, size_t index, RowResult* result) {
  const Row& row = job->rows[index];
  const size_t row_bytes = static_cast<size_t>(job->num_views) * job->side * job->side * 3;
  uint8_t* const out = job->out + row.place * row_bytes;
  Status status = Status::ok;
  if (row.kind == Kind::raw) {
    status = cut_raw(&bench->resampler, bench->payload.data(), *job, index, out);
  } else {
    Counters counters;
    status = bench->decoder.decode_views(
        bench->payload.data(), row.length, &job->views[index * job->num_views], job->num_views,
        job->side, job->dct, out, &counters, nullptr, row.width, row.height,
        {bench->record.data(), bench->record.size(), row.crc});
    job->cost.records_refused += counters.records_refused;
    job->cost.entropy_decoded_mcus += counters.entropy_decoded_mcus;
    job->cost.total_mcus += counters.total_mcus;
  }
  if (status != Status::ok) {
    result->status = RowStatus::refused;
    result->detail = static_cast<int64_t>(status);
  }
}

// Checks the bytes of a row that was read and makes them its pixels.
void finish_row(Bench* bench, Job* job, size_t index) {
  const Row& row = job->rows[index];
  RowResult* const result = &job->results[index];
  if (result->status != RowStatus::ok) {
    return;
  }
  StopWatch watch;
  const uint32_t found = crc32(bench->payload.data(), row.length);
  watch.add_to(&job->cost.check_ns);
  if (found != row.crc) {
    result->status = RowStatus::wrong_crc;
    result->detail = found;
    return;
  }
  if (row.kind == Kind::hand_over) {
    result->status = RowStatus::handed_over;
  } else {
    decode_row(bench, job, index, result);
    watch.add_to(&job->cost.decode_ns);
  }
  if (result->status != RowStatus::ok) {
    result->payload.assign(bench->payload.begin(), bench->payload.begin() + row.length);
  }
}

// Takes a step of a row; no memory for it is a result as good as any.
template <typename Step>
void try_step(RowResult* result, const Step& step) {
  try {
    step();
  } catch (const std::bad_alloc&) {
    result->status = RowStatus::unreadable;
    result->detail = ENOMEM;
  }
}

}  // namespace

Pool::Pool(std::vector<std::string> paths, int num_threads, size_t max_open_shards)
    : state_(std::make_shared<State>(std::move(paths), max_open_shards)), owner_(::getpid()) {
  // Signals are for Python's main thread; threads inherit the mask.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    start(announce, "fastssl-ahead");
    for (int i = 0; i < num_threads; ++i) {
      start(work, "fastssl-decode");
    }
  } catch (...) {
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    stop();
    throw;
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

Pool::~Pool() { stop(); }

void Pool::start(void (*run)(const std::shared_ptr<State>&), const char* name) {
  const std::lock_guard<std::mutex> lock(state_->mutex);
  threads_.emplace_back(run, state_);
  pthread_setname_np(threads_.back().native_handle(), name);
  ++state_->num_running;
}

void Pool::stop() {
  if (::getpid() != owner_) {
    // The threads are the parent's. Forgetting them and what they may have locked is all that is
    // safe here.
    for (std::thread& thread : threads_) {
      new std::thread(std::move(thread));
    }
    threads_.clear();
    new std::shared_ptr<State>(std::move(state_));
    state_ = nullptr;
    return;
  }
  if (state_ == nullptr || threads_.empty()) {
    return;
  }
  bool is_over = false;
  {
    std::unique_lock<std::mutex> lock(state_->mutex);
    state_->stopping = true;
    state_->jobs.clear();
    state_->has_work.notify_all();
    state_->has_result.notify_all();
    auto& has_result = state_->has_result;
    is_over = has_result.wait_for(lock, kStopWait, [&] { return state_->num_running == 0; });
    // Who reads may do so for ever; all else comes to its end.
    has_result.wait(lock, [&] { return state_->num_running == state_->num_reading; });
  }
  for (std::thread& thread : threads_) {
    if (is_over) {
      thread.join();
    } else {
      thread.detach();
    }
  }
  threads_.clear();
}

void Pool::submit(const std::shared_ptr<Job>& job, bool is_urgent) {
  job->results.resize(job->rows.size());
  job->num_left = job->rows.size();
  if (job->rows.empty()) {
    return;
  }
  const std::lock_guard<std::mutex> lock(state_->mutex);
  if (state_->stopping) {
    return;
  }
  if (is_urgent) {
    state_->jobs.push_front(job);
  } else {
    state_->jobs.push_back(job);
  }
  state_->has_work.notify_all();
}

bool Pool::wait(const Job& job, int64_t timeout_ms) {
  std::unique_lock<std::mutex> lock(state_->mutex);
  state_->has_result.wait_for(lock, std::chrono::milliseconds(timeout_ms),
                              [&] { return job.num_left == 0 || state_->stopping; });
  return job.num_left == 0;
}

// Tells the system of rows ahead of those who read them. In a thread of its own: to open a shard
// may take as long as to read from it, and nobody should wait for one that he does not need yet.
void Pool::announce(const std::shared_ptr<State>& state) {
  std::unique_lock<std::mutex> lock(state->mutex);
  Row row{};
  while (true) {
    state->has_work.wait(lock, [&] { return state->stopping || state->take_unannounced(&row); });
    if (state->stopping) {
      break;
    }
    ++state->num_reading;
    lock.unlock();
    state->shards.announce(row);
    if (row.record_length > 0) {
      state->shards.announce(find_record(row, state->shards));
    }
    lock.lock();
    --state->num_reading;
  }
  --state->num_running;
  state->has_result.notify_all();
}

void Pool::work(const std::shared_ptr<State>& state) {
  Bench bench;
  std::unique_lock<std::mutex> lock(state->mutex);
  while (true) {
    state->has_work.wait(lock, [&] { return state->stopping || !state->jobs.empty(); });
    if (state->stopping) {
      break;
    }
    const std::shared_ptr<Job> job = state->jobs.front();
    const size_t index = job->next++;
    if (job->next == job->rows.size()) {
      state->jobs.pop_front();
    }
    RowResult* const result = &job->results[index];
    ++state->num_reading;
    lock.unlock();
    try_step(result, [&] { read_row(&bench, &state->shards, job.get(), index, state->stopping); });
    lock.lock();
    --state->num_reading;
    if (state->stopping) {
      break;  // The pixels may be gone.
    }
    lock.unlock();
    try_step(result, [&] { finish_row(&bench, job.get(), index); });
    lock.lock();
    if (--job->num_left == 0) {
      state->has_result.notify_all();
    }
  }
  --state->num_running;
  state->has_result.notify_all();
}

}  // namespace fastssl::jpeg
