#include "liveness/stack_signals.h"

#include <execinfo.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <string>
#include <vector>

#include "base/error.h"

namespace hpresil {
namespace {

std::atomic<StackArea*> g_area{nullptr};
std::atomic<pid_t> g_owner{0};

StackArea* asked_area() {
  StackArea* area = g_area.load();
  const bool asked = area != nullptr && g_owner.load() == getpid() && area->asked.load() != 0;
  return asked ? area : nullptr;
}

void on_asked(int /*signal*/) {
  const int saved_errno = errno;
  StackArea* area = asked_area();
  if (area == nullptr) {
    errno = saved_errno;
    return;
  }
  const std::uint32_t place = area->claimed.fetch_add(1);
  if (place < kStackPlaces) {
    ThreadStack& mine = area->places[place];
    std::array<void*, kStackFrames> frames{};
    const int count = backtrace(frames.data(), static_cast<int>(frames.size()));
    for (int i = 0; i < count; ++i) {
      mine.frames[i] = reinterpret_cast<std::uint64_t>(frames[i]);
    }
    mine.thread = static_cast<std::uint32_t>(syscall(SYS_gettid));
    mine.ready.store(static_cast<std::uint32_t>(count) + 1);
  }
  for (;;) {
    pause();  // this worker has been given up; it is killed in a moment
  }
}

void on_told(int /*signal*/) {
  StackArea* area = asked_area();
  if (area != nullptr) {
    area->told.store(1);
  }
}

void install(int signal, void (*handler)(int)) {
  struct sigaction action{};
  action.sa_handler = handler;
  action.sa_flags = SA_ONSTACK | SA_RESTART;
  sigemptyset(&action.sa_mask);
  if (sigaction(signal, &action, nullptr) != 0) {
    fail_errno("installing the handler of signal " + std::to_string(signal), errno);
  }
}

}  // namespace

// Real-time signals that neither the C library nor the common debuggers and profilers use.
int stack_signal() { return SIGRTMAX - 5; }
int text_signal() { return SIGRTMAX - 4; }

void install_stack_handlers(std::shared_ptr<Page> page) {
  std::array<void*, 1> none{};
  backtrace(none.data(), 1);                                   // loads the unwinder now: a handler must not
  static auto* kept = new std::vector<std::shared_ptr<Page>>;  // a handler may be using an older one
  kept->push_back(std::move(page));
  g_owner.store(getpid());
  g_area.store(&kept->back()->stacks());
  install(stack_signal(), on_asked);
  install(text_signal(), on_told);
}

int text_fd(const Page& page) {
  constexpr std::size_t kStart = kPageBytes + offsetof(StackArea, text);
  if (lseek(page.fd(), static_cast<off_t>(kStart), SEEK_SET) < 0) {
    fail_errno("setting the offset of the liveness page", errno);
  }
  return page.fd();
}

}  // namespace hpresil
