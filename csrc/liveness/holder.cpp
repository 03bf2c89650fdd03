#include "liveness/holder.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/thread.h"
#include "trace/span.h"

namespace hpresil {
namespace {

constexpr std::int64_t kBeatNs = 1'000'000'000;

// Replaces the list that the C library registered for this thread; the thread uses no robust mutex
// of its own. The entry is private to the thread, so no other process can break the list.
class RobustEntry {
 public:
  void enlist(Word& word) {
    entry_.next = &head_.list;
    head_.list.next = &entry_;
    head_.futex_offset = reinterpret_cast<char*>(&word) - reinterpret_cast<char*>(&entry_);
    head_.list_op_pending = nullptr;
    syscall(SYS_set_robust_list, &head_, sizeof(head_));
  }

 private:
  robust_list entry_{};
  robust_list_head head_{};
};

bool claim(Word& life) {
  std::uint32_t nobody = 0;
  const auto me = static_cast<std::uint32_t>(syscall(SYS_gettid));
  // With the waiters bit the kernel wakes always, not only when somebody had announced to wait.
  return life.compare_exchange_strong(nobody, me | FUTEX_WAITERS);
}

}  // namespace

Holder::Holder(std::shared_ptr<Page> page) : page_(std::move(page)) {}

std::shared_ptr<Holder> Holder::start(std::shared_ptr<Page> page) {
  auto holder = std::make_shared<Holder>(std::move(page));
  start_thread("hpresil-life", [holder] { holder->run(); }).detach();
  while (holder->claimed_.load() == 0) {
    wait_on(holder->claimed_, 0, kBeatNs);
  }
  expects(holder->claimed_.load() == 1, "the liveness page was held before; each process life needs its own");
  return holder;
}

void Holder::run() {
  Word& life = page_->layout().life;
  // Leaked on purpose: the kernel reads the entry after this thread's last instruction.
  auto* entry = new RobustEntry;
  entry->enlist(life);
  const bool mine = claim(life);
  claimed_.store(mine ? 1 : 2);
  wake_all(claimed_);
  wake_all(life);
  while (mine && !ending_.load()) {
    const std::uint32_t generation = page_->generation();
    page_->beat();
    fire_if_due();
    wait_on(page_->layout().generation, generation, kBeatNs);
  }
}

void Holder::fire_if_due() {
  const std::lock_guard lock(lock_);
  if (armed_ && page_->generation() > armed_generation_) {
    armed_ = false;
    fired_ = true;
    const Span span(SpanName::interrupt);
    sockets_.shut_down();
  }
}

void Holder::arm(std::uint32_t generation, const std::vector<int>& fds) {
  {
    InterruptList sockets(fds);
    const std::lock_guard lock(lock_);
    sockets_ = std::move(sockets);
    armed_generation_ = generation;
    armed_ = true;
    fired_ = false;
  }
  fire_if_due();  // the thread may have looked before the list was there
}

bool Holder::disarm() {
  const std::lock_guard lock(lock_);
  armed_ = false;
  return fired_;
}

void Holder::give_notice() {
  ending_.store(true);
  wake_all(page_->layout().generation);
}

}  // namespace hpresil
