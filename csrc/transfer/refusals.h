// What was turned away, counted by reason. Thread safe; memory bounded by the few reasons there are.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <string>

namespace hpresil::transfer {

class Refusals {
 public:
  void count(const std::string& reason) {
    const std::lock_guard lock(lock_);
    ++counts_[reason];
  }
  [[nodiscard]] std::map<std::string, std::uint64_t> counts() const {
    const std::lock_guard lock(lock_);
    return counts_;
  }

 private:
  mutable std::mutex lock_;
  std::map<std::string, std::uint64_t> counts_;
};

}  // namespace hpresil::transfer
