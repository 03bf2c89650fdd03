#include "liveness/fatal_signals.h"

#include <linux/futex.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>

#include "base/error.h"

namespace hpresil {
namespace {

constexpr std::array<int, 5> kFatal = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

// Plain data that the handler may touch; nothing of it is ever freed.
std::array<struct sigaction, kFatal.size()> g_previous;
std::atomic<PageLayout*> g_page{nullptr};
std::atomic<pid_t> g_owner{0};

void on_fatal(int signal) {
  const int saved_errno = errno;
  PageLayout* page = g_page.load();
  if (page != nullptr && g_owner.load() == getpid()) {
    std::uint32_t none = 0;
    page->fatal_signal.compare_exchange_strong(none, static_cast<std::uint32_t>(signal));
    page->life.fetch_or(FUTEX_OWNER_DIED);
    wake_all(page->life);
  }
  for (std::size_t i = 0; i < kFatal.size(); ++i) {
    if (kFatal[i] == signal) {
      sigaction(signal, &g_previous[i], nullptr);
    }
  }
  raise(signal);  // blocked here, so it is delivered to the restored action on return
  errno = saved_errno;
}

void use_alternate_stack() {
  stack_t current{};
  if (sigaltstack(nullptr, &current) != 0 || (current.ss_flags & SS_DISABLE) == 0) {
    return;  // somebody, faulthandler for instance, has given this thread one
  }
  constexpr std::size_t kStackBytes = std::size_t{64} << 10;
  stack_t mine{};
  mine.ss_sp = new std::byte[kStackBytes];  // for the life of the thread
  mine.ss_size = kStackBytes;
  if (sigaltstack(&mine, nullptr) != 0) {
    fail_errno("setting an alternate signal stack", errno);
  }
}

}  // namespace

void install_fatal_handlers(std::shared_ptr<Page> page) {
  use_alternate_stack();
  auto* forever = new std::shared_ptr<Page>(std::move(page));
  const bool installed = g_page.exchange(&(*forever)->layout()) != nullptr;
  g_owner.store(getpid());
  if (installed) {
    return;
  }
  for (std::size_t i = 0; i < kFatal.size(); ++i) {
    struct sigaction action{};
    action.sa_handler = on_fatal;
    action.sa_flags = SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    if (sigaction(kFatal[i], &action, &g_previous[i]) != 0) {
      fail_errno("installing the handler of signal " + std::to_string(kFatal[i]), errno);
    }
  }
}

void forbid_core_dumps() {
  rlimit limit{};
  if (getrlimit(RLIMIT_CORE, &limit) != 0) {
    fail_errno("reading RLIMIT_CORE", errno);
  }
  limit.rlim_cur = std::min<rlim_t>(1, limit.rlim_max);
  if (setrlimit(RLIMIT_CORE, &limit) != 0) {
    fail_errno("setting RLIMIT_CORE", errno);
  }
}

}  // namespace hpresil
