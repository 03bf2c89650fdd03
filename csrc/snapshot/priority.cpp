#include "snapshot/priority.h"

#include <sched.h>
#include <sys/resource.h>

#include "base/error.h"
#include "base/thread.h"

namespace hpresil {
namespace {

constexpr int kNice = 10;  // a tenth of a core that others want too

bool set_policy(pid_t tid, int policy) noexcept {
  const sched_param none{};
  return sched_setscheduler(tid, policy, &none) == 0;
}

}  // namespace

bool may_raise() {
  static const bool answer = [] {
    bool raised = false;
    try {
      start_thread("hpresil-try", [&] {
        raised = set_policy(0, SCHED_IDLE) && set_policy(0, SCHED_OTHER);
      }).join();
    } catch (const NativeError&) {  // no thread to try it with
    }
    return raised;
  }();
  return answer;
}

void step_back() noexcept {
  if (may_raise()) {
    set_policy(0, SCHED_IDLE);
  } else {
    set_policy(0, SCHED_BATCH);
    setpriority(PRIO_PROCESS, 0, kNice);  // of a thread, on Linux
  }
}

void raise_thread(pid_t tid) noexcept {
  if (may_raise()) {
    set_policy(tid, SCHED_OTHER);
  }
}

}  // namespace hpresil
