// Threads that turn rows of a batch into pixels: pread, CRC-32, decode, crop, resize.
//
// A job is a batch, or some rows of it that are tried anew. Threads take its rows one by one, the
// oldest job first, and whoever handed it in waits for it. Nothing here knows of torch or Python.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "jpeg/decode.h"

namespace fastssl::jpeg {

// What a row's bytes are.
enum class Kind : int32_t {
  jpeg = 0,
  raw = 1,        // NumPy's format: a header, then (H, W, 3) uint8.
  hand_over = 2,  // For the reference decoder: read and checked, the bytes are kept.
};

struct Row {
  int32_t shard;
  uint32_t length;  // Bytes.
  int64_t offset;
  uint32_t record_length;  // Of its entry points, in their own file; 0: it has none.
  int64_t record_offset;
  uint32_t crc;
  Kind kind;
  int32_t width;  // Upright, in pixels.
  int32_t height;
  int32_t place;  // Row of the output that it fills.
};

enum class RowStatus : int32_t {
  ok = 0,
  unreadable = 1,  // detail: errno.
  short_read = 2,  // detail: bytes that were there.
  wrong_crc = 3,   // detail: the CRC-32 found.
  refused = 4,     // detail: the decoder's Status; the bytes are kept.
  handed_over = 5,
};

struct RowResult {
  RowStatus status = RowStatus::ok;
  int64_t detail = 0;
  std::vector<uint8_t> payload;  // Of a row that the reference decoder shall take.
};

// Seconds and counts of a job, summed over threads.
struct Cost {
  std::atomic<int64_t> read_ns{0};
  std::atomic<int64_t> check_ns{0};
  std::atomic<int64_t> decode_ns{0};
  std::atomic<uint64_t> entropy_decoded_mcus{0};
  std::atomic<uint64_t> total_mcus{0};
  std::atomic<uint64_t> records_refused{0};
};

struct Job {
  std::vector<Row> rows;
  std::vector<ViewBox> views;  // num_views a row.
  int32_t num_views = 0;
  int32_t side = 0;
  Dct dct = Dct::exact;
  uint8_t* out = nullptr;  // (places, num_views, side, side, 3); the caller's, see Pool.

  std::vector<RowResult> results;
  Cost cost;
  std::atomic<size_t> num_left{0};
  size_t next = 0;           // Guarded by the pool.
  size_t num_announced = 0;  // Likewise.
};

// Open shards, the latest used; one stays open while somebody reads from it.
class Shards {
 public:
  Shards(std::vector<std::string> paths, size_t max_open);

  // Reads all of a row's bytes into `out`, which has room for them. I/O errors and short reads are
  // tried again, each time after a pause and with the shard opened anew.
  void read(const Row& row, uint8_t* out, RowResult* result, const std::atomic<bool>& stopping);

  // Tells the system which bytes will be wanted soon, so that disks work ahead of the threads.
  void announce(const Row& row);

  // How many files there are.
  size_t size() const { return paths_.size(); }

 private:
  class File;
  std::shared_ptr<File> find(int32_t shard);
  std::shared_ptr<File> open(int32_t shard, int* error);
  void forget(int32_t shard);

  const std::vector<std::string> paths_;
  const size_t max_open_;
  std::mutex mutex_;
  std::list<int32_t> recent_;  // The latest first.
  struct Entry {
    std::shared_ptr<File> file;
    std::list<int32_t>::iterator place;
  };
  std::unordered_map<int32_t, Entry> files_;
};

// The pixels that a job fills belong to whoever handed it in, and may go once the job is done or
// the pool has stopped. Threads own nothing but memory of their own: the last one to let go of a
// tensor could be the one that has to ask Python, and a Python that is ending kills who asks.
class Pool {
 public:
  // paths: of the shards; behind them that of the entry points, if a row has any.
  Pool(std::vector<std::string> paths, int num_threads, size_t max_open_shards);
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Hands in a job; one that is urgent goes before all others. A pool that has stopped takes none.
  void submit(const std::shared_ptr<Job>& job, bool is_urgent);

  // Waits for a job. False if it was not done in time, or the pool stops.
  bool wait(const Job& job, int64_t timeout_ms);

  // Ends the threads at their next row; no job is written to any more. One that hangs in a read is
  // left to itself: it holds all that it uses.
  void stop();

 private:
  struct State;
  void start(void (*run)(const std::shared_ptr<State>&), const char* name);
  static void announce(const std::shared_ptr<State>& state);
  static void work(const std::shared_ptr<State>& state);

  std::shared_ptr<State> state_;
  std::vector<std::thread> threads_;
  int owner_;  // The process; after a fork the child has no threads and leaves the pool alone.
};

}  // namespace fastssl::jpeg
