#include "liveness/stack_reader.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <memory>

#include "base/clock.h"
#include "liveness/stack_signals.h"

namespace hpresil {
namespace {

constexpr std::int64_t kLookNs = 2'000'000;
constexpr std::size_t kMaxFileBytes = std::size_t{8} << 20;

std::string contents(const std::string& path) {
  const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  std::string piece(1 << 16, '\0');
  while (file.get() >= 0 && text.size() < kMaxFileBytes) {
    const ssize_t got = ::read(file.get(), piece.data(), piece.size());
    if (got <= 0) {
      break;
    }
    text.append(piece, 0, static_cast<std::size_t>(got));
  }
  return text;
}

std::vector<pid_t> threads_of(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/task";
  const std::unique_ptr<DIR, int (*)(DIR*)> directory(opendir(path.c_str()), closedir);
  std::vector<pid_t> found;
  while (const dirent* entry = directory ? readdir(directory.get()) : nullptr) {
    const long thread = std::strtol(entry->d_name, nullptr, 10);
    if (thread > 0) {
      found.push_back(static_cast<pid_t>(thread));
    }
  }
  std::sort(found.begin(), found.end());  // the main thread first
  return found;
}

void send(pid_t pid, pid_t thread, int signal) { syscall(SYS_tgkill, pid, thread, signal); }

ThreadReport look_at(pid_t pid, pid_t thread) {
  const std::string directory = "/proc/" + std::to_string(pid) + "/task/" + std::to_string(thread);
  ThreadReport report{thread, "", "", '?', false, {}};
  const std::string stat = contents(directory + "/stat");
  const std::size_t open = stat.find('(');
  const std::size_t close = stat.rfind(')');
  if (open != std::string::npos && close != std::string::npos && close + 2 < stat.size()) {
    report.name = stat.substr(open + 1, close - open - 1);
    report.state = stat[close + 2];
  }
  const std::string wchan = contents(directory + "/wchan");
  report.where = wchan == "0" ? "" : wchan;
  const std::string status = contents(directory + "/status");
  const std::size_t at = status.find("SigBlk:");
  if (at != std::string::npos) {
    const std::uint64_t blocked = std::strtoull(status.c_str() + at + 7, nullptr, 16);
    report.blocks = (blocked >> (stack_signal() - 1) & 1) != 0;
  }
  return report;
}

// Fills in what has come meanwhile; returns whether every thread that can answer has.
bool take_answers(const StackArea& area, std::vector<ThreadReport>& threads) {
  const std::size_t claimed = std::min<std::size_t>(area.claimed.load(), kStackPlaces);
  for (std::size_t i = 0; i < claimed; ++i) {
    const ThreadStack& place = area.places[i];
    const std::uint32_t ready = place.ready.load();
    for (ThreadReport& thread : threads) {
      if (ready > 1 && thread.frames.empty() && static_cast<std::uint32_t>(thread.thread) == place.thread) {
        const std::size_t count = std::min<std::size_t>(ready - 1, kStackFrames);
        thread.frames.assign(place.frames.begin(), place.frames.begin() + static_cast<std::ptrdiff_t>(count));
      }
    }
  }
  return std::all_of(threads.begin(), threads.end(), [](const ThreadReport& thread) {
    return thread.blocks || thread.state == '?' || !thread.frames.empty();
  });
}

// The fault handler has to run where nothing interrupts it for good: in a thread that stands still already.
pid_t teller(const std::vector<ThreadReport>& threads) {
  for (const ThreadReport& thread : threads) {
    if (!thread.frames.empty()) {
      return thread.thread;
    }
  }
  return 0;
}

std::string text_of(const StackArea& area) {
  const auto* end = std::find(area.text.begin(), area.text.end(), '\0');
  return {area.text.begin(), end};
}

}  // namespace

std::size_t ask_for_stacks(Page& page, pid_t pid) {
  page.stacks().asked.store(1);
  const std::vector<pid_t> threads = threads_of(pid);
  for (const pid_t thread : threads) {
    send(pid, thread, stack_signal());
  }
  return threads.size();
}

StackReport wait_for_stacks(Page& page, pid_t pid, std::int64_t timeout_ns) {
  const std::int64_t begin = monotonic_ns();
  StackReport report{"", false, {}, ""};
  for (const pid_t thread : threads_of(pid)) {
    report.threads.push_back(look_at(pid, thread));
  }
  const StackArea& area = page.stacks();
  pid_t telling = 0;
  for (;;) {
    const bool complete = take_answers(area, report.threads);
    const std::int64_t passed = monotonic_ns() - begin;
    if (telling == 0 && (complete || passed > timeout_ns / 3)) {
      telling = teller(report.threads);
      if (telling != 0) {
        send(pid, telling, text_signal());
      }
    }
    report.told = area.told.load() != 0;
    if ((complete && (report.told || telling == 0)) || passed >= timeout_ns) {
      break;
    }
    const timespec look{0, kLookNs};
    nanosleep(&look, nullptr);
  }
  report.python = text_of(area);
  report.mappings = contents("/proc/" + std::to_string(pid) + "/maps");
  return report;
}

}  // namespace hpresil
