#include "snapshot/copier.h"

#include <unistd.h>

#include <chrono>
#include <ctime>
#include <utility>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "snapshot/priority.h"

namespace hpresil {
namespace {

std::int64_t thread_cpu_ns() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace

Copier::Copier(CopierOptions options) : options_(options) {
  expects(options.threads >= 0, "a copier cannot have less than 0 threads");
  expects(options.share > 0 && options.share <= 1, "the share of a core must be above 0 and at most 1");
  may_raise();  // tried here, by no thread that must not lose time
  try {
    for (int i = 0; i < options.threads; ++i) {
      threads_.push_back(start_thread("hpresil-copy", [this] { serve(); }));
    }
  } catch (const NativeError&) {
    if (threads_.empty()) {
      throw;
    }  // fewer threads do the same work
  }
}

Copier::~Copier() {
  cancel();
  {
    const std::scoped_lock lock(mutex_);
    closing_ = true;
  }
  begun_.notify_all();
  hurry();
  for (std::thread& thread : threads_) {
    thread.join();
  }
}

void Copier::begin(Contents contents) {
  expects(idle(), "a frame is being filled already: wait for it first");
  auto fill = std::make_shared<Fill>(std::move(contents));
  {
    const std::scoped_lock lock(mutex_);
    fill_ = std::move(fill);
    helped_ = 0;
    hurrying_ = false;
  }
  begun_.notify_all();
}

Filled Copier::wait(std::int64_t timeout_ns) {
  std::shared_ptr<Fill> fill;
  {
    const std::scoped_lock lock(mutex_);
    fill = fill_;
  }
  if (fill == nullptr) {
    return {false, 0, 0};
  }
  if (!fill->ended()) {
    const std::int64_t end = monotonic_ns() + timeout_ns;
    hurry();
    std::uint64_t helped = 0;
    while (monotonic_ns() < end) {
      const std::size_t nbytes = fill->take_part();
      helped += nbytes;
      if (nbytes == 0) {
        break;
      }
    }
    std::unique_lock lock(mutex_);
    helped_ += helped;
    ended_.wait_until(lock, std::chrono::steady_clock::time_point(std::chrono::nanoseconds(end)),
                      [&] { return fill->ended(); });
  }
  const std::scoped_lock lock(mutex_);
  return {fill->sealed(), fill->nbytes(), helped_};
}

void Copier::cancel() {
  const std::scoped_lock lock(mutex_);
  if (fill_ != nullptr) {
    fill_->cancel();
  }
}

bool Copier::idle() const {
  const std::scoped_lock lock(mutex_);
  return fill_ == nullptr || fill_->ended();
}

void Copier::serve() {
  std::unique_lock lock(mutex_);
  tids_.push_back(gettid());
  std::shared_ptr<Fill> last;
  for (;;) {
    begun_.wait(lock, [&] { return closing_ || fill_ != last; });
    if (closing_) {
      return;
    }
    last = fill_;
    lock.unlock();
    lower();
    work(*last);
    raise_thread(0);
    lock.lock();
    ended_.notify_all();
  }
}

void Copier::lower() {
  step_back();
  if (hurrying_.load()) {
    raise_thread(0);  // hurry() may have been there before
  }
}

void Copier::work(Fill& fill) {
  for (;;) {
    const std::int64_t before = options_.share < 1 ? thread_cpu_ns() : 0;
    if (fill.take_part() == 0) {
      return;
    }
    if (options_.share < 1) {
      rest(thread_cpu_ns() - before);
    }
  }
}

// So long that the work was the share of the time; not when somebody waits.
void Copier::rest(std::int64_t worked_ns) {
  const auto ns = static_cast<std::int64_t>(static_cast<double>(worked_ns) * (1 / options_.share - 1));
  raise_thread(0);
  {
    std::unique_lock lock(mutex_);
    hurried_.wait_for(lock, std::chrono::nanoseconds(ns), [&] { return hurrying_.load() || closing_; });
  }
  lower();
}

void Copier::hurry() {
  std::vector<pid_t> tids;
  {
    const std::scoped_lock lock(mutex_);
    hurrying_ = true;
    tids = tids_;
  }
  hurried_.notify_all();
  for (const pid_t tid : tids) {
    raise_thread(tid);
  }
}

}  // namespace hpresil
