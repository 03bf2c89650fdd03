// Fetches one version into a frame here, from one source or several, until every chunk is here and right.
//
// `streams` connections a source, `at_once` sources at a time (sources.h). What breaks is given back and
// asked for again, by another connection or after a reconnection: no chunk that arrived travels again. What
// is here may be offered on while the rest is coming: a chain of fetches is a pipeline.
//
// Ends as "done", "failed" (no source is left), "cancelled" or "deadline"; never later than `deadline_ns`
// after its start plus the time for its threads to notice.
#pragma once

#include <atomic>
#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "memory/mapping.h"
#include "transfer/connection.h"
#include "transfer/frame.h"
#include "transfer/sources.h"

namespace hpresil::transfer {

// Where a version may be had: over one of several networks, or on this machine.
struct Source {
  std::string name;
  std::vector<Route> routes;  // one a network; with several the fastest is found by measuring
  std::string unix_path;      // not "": on this machine, `routes` is not looked at
};

struct FetchSettings {
  std::size_t streams;
  std::size_t at_once;
  std::size_t window;  // requests on their way, a connection
  std::int64_t connect_ns;
  std::int64_t stall_ns;     // the longest wait for a byte
  std::int64_t deadline_ns;  // of the whole fetch
  std::uint32_t appear_ms;   // how long a source may wait for the version to be offered
  int copy_threads;          // of a copy on this machine
};

struct SourceReport {
  std::uint64_t received_bytes = 0;  // of chunks that were right
  std::uint64_t breaks = 0;
  std::map<std::string, std::uint64_t> reasons;  // of the breaks
  std::string last_error;
  std::map<std::string, double> measured;  // bytes per second, by route
  std::string route;                       // the one in use last
};

// Thread safe. The destructor cancels and waits.
class FrameFetch {
 public:
  // Starts at once. `here`: see ChunkMap. The frame must be an arriving one.
  FrameFetch(std::shared_ptr<Frame> frame, std::vector<Source> sources, const FetchSettings& settings,
             const std::vector<std::uint8_t>& here);
  ~FrameFetch();
  FrameFetch(const FrameFetch&) = delete;
  FrameFetch& operator=(const FrameFetch&) = delete;

  // Readable, for good, once the fetch has ended.
  [[nodiscard]] int fd() const { return ended_fd_.get(); }
  // Whether it has ended, after waiting up to `timeout_ns`.
  bool wait(std::int64_t timeout_ns);
  void cancel();

  [[nodiscard]] const std::shared_ptr<Frame>& frame() const { return frame_; }
  // "running" before the end.
  [[nodiscard]] std::string state() const;
  [[nodiscard]] std::vector<SourceReport> reports() const;
  [[nodiscard]] std::vector<std::uint8_t> here() const;
  [[nodiscard]] std::int64_t elapsed_ns() const;

 private:
  friend class FetchWorker;

  void run();
  void work(int number);
  void finish(std::vector<std::thread>& workers);

  std::shared_ptr<Frame> frame_;
  const std::vector<Source> sources_;
  const FetchSettings settings_;
  const std::int64_t begun_ns_;
  Fd ended_fd_;

  mutable std::mutex lock_;
  std::condition_variable changed_;
  ChunkMap chunks_;
  Sources plan_;
  std::vector<SourceReport> reports_;
  std::vector<std::vector<std::size_t>> ranks_;  // of each source's routes; empty until measured
  std::set<const Connection*> open_;
  std::size_t working_ = 0;
  // Unmapping takes as long as half of the copy: after the end, when nobody waits for it.
  std::unique_ptr<Mapping> copied_from_;
  std::string state_ = "running";
  std::int64_t ended_ns_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<bool> cancelled_{false};
  std::thread thread_;
};

// The bytes of a version at a source. Throws Broken.
std::uint64_t ask_size(const JobKey& key, Identity identity, const Source& source, std::int64_t timeout_ns,
                       std::uint32_t appear_ms);

}  // namespace hpresil::transfer
