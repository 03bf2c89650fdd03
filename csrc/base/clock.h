// Monotonic time, the same clock as Python's time.monotonic().
#pragma once

#include <cstdint>
#include <ctime>

namespace hpresil {

inline std::int64_t monotonic_ns() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

}  // namespace hpresil
