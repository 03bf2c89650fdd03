// A point in time by which something must have happened, and a wait that looks until then.
#pragma once

#include <algorithm>
#include <cstdint>
#include <ctime>
#include <string>

#include "base/clock.h"

namespace hpresil {

class Deadline {
 public:
  // `what` in words that fit "... did not happen within N s".
  Deadline(double seconds, std::string what)
      : seconds_(seconds),
        end_ns_(monotonic_ns() + static_cast<std::int64_t>(std::min(seconds, 1e9) * 1e9)),
        what_(std::move(what)) {}

  [[nodiscard]] bool expired() const { return monotonic_ns() >= end_ns_; }
  [[nodiscard]] const std::string& what() const { return what_; }
  [[nodiscard]] std::string text() const {
    return what_ + " did not happen within " + std::to_string(seconds_) + " s";
  }

 private:
  double seconds_;
  std::int64_t end_ns_;
  std::string what_;
};

// Calls `ended` until it returns true (then true) or the deadline has passed (then false). Sleeps in between,
// 50 us at first and 2 ms at most: what is waited for takes from microseconds to seconds.
template <typename Ended>
bool look_until(const Deadline& deadline, Ended ended) {
  for (std::int64_t pause_ns = 50'000;; pause_ns = std::min<std::int64_t>(2 * pause_ns, 2'000'000)) {
    if (ended()) {
      return true;
    }
    if (deadline.expired()) {
      return ended();
    }
    const timespec pause{0, pause_ns};
    nanosleep(&pause, nullptr);
  }
}

}  // namespace hpresil
