#include "communicator/call_memory.h"

#include <deque>
#include <mutex>

namespace hpresil {

CallMemory& new_call_memory() {
  static std::mutex lock;
  static auto* all = new std::deque<CallMemory>;  // outlives NCCL's threads, also at the end of the process
  const std::lock_guard held(lock);
  return all->emplace_back();
}

}  // namespace hpresil
