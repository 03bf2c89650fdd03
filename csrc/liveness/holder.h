// The worker's native thread: its end is the death notice, and it interrupts sockets on a new view.
//
// It never takes the interpreter lock, so it also shows that the process as such still runs: once a second it
// leaves the time in the page. A process whose native thread is fresh and whose interpreter lock has not been
// had for long is one that holds the lock for good.
//
// The thread puts its id into the page's life word and registers the word with the kernel as a robust
// futex. However the thread ends (exit, SIGKILL, exec), the kernel marks the word and wakes who waits
// on it before it frees the process's memory, which takes 85 ms a GiB: the agent hears at once.
//
// So the notice means "fence this worker", not "it is gone": the end of this thread alone or an exec
// give it while the process lives, and a core dump delays it (fatal_signals.h covers that). A forked
// child neither holds the futex nor gives notice. Until hold() has returned, use a pidfd.
//
// Why not pthread's robust mutex: a watcher could wait for either the mutex or a mark, not for both,
// and would own the mutex after the death. A plain word has one place to wait on and no owner after.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>

#include "liveness/interrupt.h"
#include "liveness/page.h"

namespace hpresil {

class Holder {
 public:
  // Starts the thread and returns once it holds the page; it runs until the process ends and keeps
  // the page mapped. Throws if the page has been held before.
  static std::shared_ptr<Holder> start(std::shared_ptr<Page> page);

  explicit Holder(std::shared_ptr<Page> page);

  // When the page's generation rises above `generation`, or is already, the sockets among `fds` are
  // shut down, once. Replaces an earlier list.
  void arm(std::uint32_t generation, const std::vector<int>& fds);

  // After the return nothing of the list is touched any more. Returns whether it had fired.
  bool disarm();

  // Ends the thread, which gives the notice: this worker asks to be fenced.
  void give_notice();

 private:
  void run();
  void fire_if_due();

  std::shared_ptr<Page> page_;
  std::mutex lock_;
  InterruptList sockets_;
  std::uint32_t armed_generation_ = 0;
  bool armed_ = false;
  bool fired_ = false;
  Word claimed_{0};  // 0: the thread is starting; 1: it holds the page; 2: somebody held it before
  std::atomic<bool> ending_{false};
};

}  // namespace hpresil
