// One liveness page, as either side sees it.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <mutex>

#include "liveness/layout.h"
#include "memory/mapping.h"
#include "memory/memfd.h"

namespace hpresil {

struct PageState {
  bool held;         // the worker's native thread holds the robust futex
  bool ended;        // it held it once, and has ended or is being killed by a signal
  int fatal_signal;  // 0, or the signal that is killing the worker
  std::int64_t phase;
  std::int64_t step;
  std::int64_t slot;
  std::int64_t stamp_ns;  // monotonic; 0 before the first stamp
  std::uint64_t stamps;
  std::uint32_t generation;
  std::int64_t native_ns;       // monotonic; when the native thread ran last, 0 before it did
  std::int64_t interpreter_ns;  // monotonic; when the interpreter lock was had last, 0 if nobody tries
};

// The mapping and the descriptor live as long as any thread, handler or watch that uses them: shared
// ownership. Thread safe.
class Page {
 public:
  static std::shared_ptr<Page> create();

  // Maps the page behind `fd`, which stays the caller's. Refuses what is not a sealed liveness page.
  static std::shared_ptr<Page> attach(int fd);

  Page(Fd fd, pid_t owner);

  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] PageLayout& layout() const { return *reinterpret_cast<PageLayout*>(mapping_.data()); }

  [[nodiscard]] StackArea& stacks() const {
    return *reinterpret_cast<StackArea*>(mapping_.data() + kPageBytes);
  }

  // Publishes where the worker is. Calls in a forked child have no effect.
  void stamp(std::int64_t phase, std::int64_t step, std::int64_t slot);

  // beat() publishes that the native thread runs, interpreter_beat() that its caller has the interpreter
  // lock. Calls in a forked child have no effect.
  void beat();
  void interpreter_beat();

  // Reads a consistent stamp, also while its writer is stopped in the middle of one.
  [[nodiscard]] PageState read() const;

  // Raises the generation and wakes who waits for it; a lower value has no effect.
  void set_generation(std::uint32_t generation);
  [[nodiscard]] std::uint32_t generation() const;

  // Returns the generation once it is above `above`, or after `timeout_ns` whatever it is.
  [[nodiscard]] std::uint32_t wait_generation(std::uint32_t above, std::int64_t timeout_ns) const;

 private:
  Fd fd_;
  Mapping mapping_;
  pid_t owner_;
  std::mutex stamping_;
};

}  // namespace hpresil
