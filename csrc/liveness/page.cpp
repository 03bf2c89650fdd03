#include "liveness/page.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <unistd.h>

#include <algorithm>
#include <new>
#include <string>

#include "base/clock.h"
#include "base/error.h"

namespace hpresil {
namespace {

constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

void check(int fd) {
  const std::string who = "descriptor " + std::to_string(fd);
  if (bytes_of(fd) != kPageFileBytes) {
    fail(who + " is no liveness page: it holds " + std::to_string(bytes_of(fd)) + " bytes, not " +
         std::to_string(kPageFileBytes));
  }
  if ((seals_of(fd) & kSeals) != kSeals) {
    fail(who + " is no liveness page: its size is not sealed");
  }
}

}  // namespace

Page::Page(Fd fd, pid_t owner)
    : fd_(std::move(fd)), mapping_(fd_.get(), kPageFileBytes, true, true), owner_(owner) {}

std::shared_ptr<Page> Page::create() {
  Fd fd = create_memfd("hpresil-page", kPageFileBytes);
  add_seals(fd.get(), kSeals);
  auto page = std::make_shared<Page>(std::move(fd), getpid());
  auto* layout = new (page->mapping_.data()) PageLayout{};
  layout->magic = kPageMagic;
  layout->layout = kPageLayout;
  return page;
}

std::shared_ptr<Page> Page::attach(int fd) {
  check(fd);
  auto page = std::make_shared<Page>(duplicate(fd), getpid());
  const PageLayout& layout = page->layout();
  expects(layout.magic == kPageMagic, "the descriptor is no liveness page: its first bytes are others");
  if (layout.layout != kPageLayout) {
    fail("the liveness page has layout " + std::to_string(layout.layout) + ", this build knows " +
         std::to_string(kPageLayout) + ": agent and worker are of different versions");
  }
  return page;
}

void Page::stamp(std::int64_t phase, std::int64_t step, std::int64_t slot) {
  if (getpid() != owner_) {
    return;  // the page of a forked child's parent is not the child's to write
  }
  const std::lock_guard lock(stamping_);
  PageLayout& page = layout();
  const std::uint64_t next = page.stamps.load(std::memory_order_relaxed) + 1;
  StampRecord& record = page.records[next % 2];
  // Release: whoever sees a field of this stamp also sees the previous count, and so reads again.
  record.phase.store(phase, std::memory_order_release);
  record.step.store(step, std::memory_order_release);
  record.slot.store(slot, std::memory_order_release);
  record.time_ns.store(monotonic_ns(), std::memory_order_release);
  page.stamps.store(next, std::memory_order_release);
}

void Page::beat() {
  if (getpid() == owner_) {
    layout().native_ns.store(monotonic_ns(), std::memory_order_release);
  }
}

void Page::interpreter_beat() {
  if (getpid() == owner_) {
    layout().interpreter_ns.store(monotonic_ns(), std::memory_order_release);
  }
}

PageState Page::read() const {
  const PageLayout& page = layout();
  PageState state{};
  std::uint64_t before = 0;
  // The other record is written next, so a copy is torn only if two stamps passed meanwhile; a
  // stopped writer never makes this loop.
  do {
    before = page.stamps.load(std::memory_order_acquire);
    const StampRecord& record = page.records[before % 2];
    state.phase = record.phase.load(std::memory_order_acquire);
    state.step = record.step.load(std::memory_order_acquire);
    state.slot = record.slot.load(std::memory_order_acquire);
    state.stamp_ns = record.time_ns.load(std::memory_order_acquire);
  } while (page.stamps.load(std::memory_order_relaxed) != before);
  state.stamps = before;
  const std::uint32_t life = page.life.load(std::memory_order_acquire);
  state.ended = (life & FUTEX_OWNER_DIED) != 0;
  state.held = life != 0 && !state.ended;
  state.fatal_signal = static_cast<int>(page.fatal_signal.load(std::memory_order_acquire));
  state.generation = page.generation.load(std::memory_order_acquire);
  state.native_ns = page.native_ns.load(std::memory_order_acquire);
  state.interpreter_ns = page.interpreter_ns.load(std::memory_order_acquire);
  return state;
}

void Page::set_generation(std::uint32_t generation) {
  Word& word = layout().generation;
  std::uint32_t current = word.load();
  while (current < generation && !word.compare_exchange_weak(current, generation)) {
  }
  wake_all(word);
}

std::uint32_t Page::generation() const { return layout().generation.load(std::memory_order_acquire); }

std::uint32_t Page::wait_generation(std::uint32_t above, std::int64_t timeout_ns) const {
  const std::int64_t end = monotonic_ns() + std::max<std::int64_t>(timeout_ns, 0);
  std::uint32_t current = generation();
  while (current <= above) {
    const std::int64_t left = end - monotonic_ns();
    if (left <= 0) {
      break;
    }
    wait_on(layout().generation, current, left);
    current = generation();
  }
  return current;
}

}  // namespace hpresil
