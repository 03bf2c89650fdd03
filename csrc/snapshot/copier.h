// Threads that fill frames in the background, and a caller who helps them when it has to wait.
//
// Between begin() and wait() the caller computes and must not change what is copied. Meanwhile the threads
// take part after part, at a low priority (priority.h) and within a budget of processor time. wait() ends the
// thrift: it raises the threads, lifts the budget and copies parts itself until none is left, so that it
// takes no longer than the bytes that are left take on all of these threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "snapshot/fill.h"

namespace hpresil {

struct CopierOptions {
  int threads;   // in the background; 0: wait() copies everything
  double share;  // of a core, for each of them, above 0 and up to 1
};

// What became of a fill.
struct Filled {
  bool sealed;
  std::uint64_t nbytes;  // of its tensors
  std::uint64_t helped;  // copied by the caller of wait()
};

// Thread safety: begin, wait and cancel from one thread; fill_ended from any.
class Copier {
 public:
  explicit Copier(
      CopierOptions options);  // throws NativeError for senseless options, and without threads to be had
  ~Copier();                   // abandons a fill: its frame stays without a seal
  Copier(const Copier&) = delete;
  Copier& operator=(const Copier&) = delete;

  // Starts to fill a frame; returns at once. Throws NativeError while another fill goes on, or if it does not
  // fit.
  void begin(Contents contents);

  // Returns when the fill has ended, or the time is over: then it goes on, and whoever waits may wait again.
  // Without a fill: at once, as not sealed.
  Filled wait(std::int64_t timeout_ns);

  // Abandons the fill, if it has not ended: no part is begun any more. wait() returns soon.
  void cancel();

  // Whether nothing is being filled.
  [[nodiscard]] bool idle() const;

 private:
  void serve();
  void work(Fill& fill);
  void rest(std::int64_t worked_ns);
  void hurry();
  void lower();

  const CopierOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable begun_;  // a fill, or the end
  std::condition_variable hurried_;
  std::condition_variable ended_;
  std::shared_ptr<Fill> fill_;
  std::uint64_t helped_ = 0;
  std::atomic<bool> hurrying_{false};
  bool closing_ = false;
  std::vector<pid_t> tids_;
  std::vector<std::thread> threads_;
};

}  // namespace hpresil
