#include "liveness/death_watch.h"

#include <linux/futex.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

namespace hpresil {
namespace {

constexpr std::int64_t kSliceNs = 250'000'000;

bool ended(std::uint32_t life) { return (life & FUTEX_OWNER_DIED) != 0; }

}  // namespace

DeathWatch::DeathWatch(std::shared_ptr<Page> page)
    : page_(std::move(page)), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), creator_(getpid()) {
  if (event_.get() < 0) {
    fail_errno("creating an eventfd", errno);
  }
  thread_ = start_thread("hpresil-watch", [this] { run(); });
}

DeathWatch::~DeathWatch() { close(); }

void DeathWatch::run() {
  Word& life = page_->layout().life;
  while (!closing_.load()) {
    const std::uint32_t value = life.load();
    if (ended(value)) {
      noticed_ns_.store(monotonic_ns());
      const std::uint64_t one = 1;
      static_cast<void>(!::write(event_.get(), &one, sizeof(one)));
      wake_all(life);  // the kernel wakes one waiter; there may be more watches
      return;
    }
    wait_on(life, value, kSliceNs);
  }
}

std::string DeathWatch::reason() const {
  const PageLayout& page = page_->layout();
  if (!ended(page.life.load())) {
    return "";
  }
  const std::uint32_t signal = page.fatal_signal.load();
  return signal == 0 ? "mutex" : "signal " + std::to_string(signal);
}

void DeathWatch::close() {
  if (thread_.joinable() && getpid() != creator_) {
    thread_.detach();
  }
  if (thread_.joinable()) {
    closing_.store(true);
    wake_all(page_->layout().life);
    thread_.join();
  }
  event_.close();
}

}  // namespace hpresil
