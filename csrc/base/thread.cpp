#include "base/thread.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <vector>

#include "base/error.h"

namespace hpresil {
namespace {

// Blocks signals of the calling thread; a thread that it starts meanwhile inherits that.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t wanted;
    sigfillset(&wanted);
    for (const int fatal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS}) {
      sigdelset(&wanted, fatal);
    }
    pthread_sigmask(SIG_SETMASK, &wanted, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace

std::thread start_thread(const char* name, std::function<void()> body) {
  const SignalsBlocked blocked;
  try {
    std::thread started(std::move(body));
    pthread_setname_np(started.native_handle(), name);
    return started;
  } catch (const std::system_error& error) {
    fail_errno(std::string("starting the thread ") + name, error.code().value());
  }
}

void run_parallel(int threads, std::size_t tasks, const std::function<void(std::size_t)>& work) {
  std::atomic<std::size_t> next{0};
  const auto drain = [&] {
    for (std::size_t task = next++; task < tasks; task = next++) {
      work(task);
    }
  };
  const std::size_t wanted = std::min(tasks, static_cast<std::size_t>(std::max(threads, 1)));
  std::vector<std::thread> others;
  for (std::size_t i = 1; i < wanted; ++i) {
    try {
      others.push_back(start_thread("hpresil-work", drain));
    } catch (const NativeError&) {
      break;  // fewer threads do the same work
    }
  }
  drain();
  for (std::thread& other : others) {
    other.join();
  }
}

}  // namespace hpresil
