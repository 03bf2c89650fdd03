// The agent's side of the death notice: an eventfd that turns readable when a page's worker ends.
//
// A native thread waits on the page's life word in bounded slices, so it needs no lock and no event
// loop, and closing it never hangs. It reports what the page says; until the worker holds the page
// that is nothing, so a pidfd must be watched as well.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "liveness/page.h"

namespace hpresil {

class DeathWatch {
 public:
  explicit DeathWatch(std::shared_ptr<Page> page);
  ~DeathWatch();
  DeathWatch(const DeathWatch&) = delete;
  DeathWatch& operator=(const DeathWatch&) = delete;

  // Readable for good once the worker ended; -1 after close().
  [[nodiscard]] int fd() const { return event_.get(); }

  // "" while the worker lives, else "mutex" or "signal N".
  [[nodiscard]] std::string reason() const;

  // Monotonic time at which this watch saw the end, 0 before.
  [[nodiscard]] std::int64_t noticed_ns() const { return noticed_ns_.load(); }

  // Ends the thread within a slice. The page may still be held. Idempotent. A forked child has no such
  // thread and only closes its descriptor.
  void close();

 private:
  void run();

  std::shared_ptr<Page> page_;
  Fd event_;
  pid_t creator_;
  std::atomic<bool> closing_{false};
  std::atomic<std::int64_t> noticed_ns_{0};
  std::thread thread_;
};

}  // namespace hpresil
