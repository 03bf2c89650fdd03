// The liveness page: what a worker and its agent share, the first 4096 bytes of a sealed memory file. Behind
// it lies the place for the worker's stacks (stack_area.h).
//
//   offset   0  magic, version of this layout
//   offset  64  life: the robust futex. 0: nobody has held it; thread id | FUTEX_WAITERS: held; with
//               FUTEX_OWNER_DIED: ended, by the kernel when the holding thread ended, or by the
//               fatal-signal handler. Never goes back: one page for one process life.
//   offset  68  fatal signal: 0, or the number of the signal that is killing the worker
//   offset 128  generation: raised by the agent, a futex the worker's native thread waits on
//   offset 192  stamps: count, then two records; count says which one is complete
//   offset 320  beats: when the worker's native thread ran last; when its interpreter lock was last had by a
//               thread that asks for it once a second (0: nobody asks)
//
// Written by the worker only, but for the generation. Every field is an atomic of its own, so a reader
// that maps a page of a dying or stopped process reads old values, never torn ones.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/futex.h"
#include "liveness/stack_area.h"

namespace hpresil {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kPageFileBytes = kPageBytes + sizeof(StackArea);
constexpr std::uint64_t kPageMagic = 0x3145474150524948;  // "HIRPAGE1", little-endian
constexpr std::uint32_t kPageLayout = 2;

struct StampRecord {
  std::atomic<std::int64_t> phase;
  std::atomic<std::int64_t> step;
  std::atomic<std::int64_t> slot;
  std::atomic<std::int64_t> time_ns;
};

struct PageLayout {
  std::uint64_t magic;
  std::uint32_t layout;
  alignas(64) Word life;
  Word fatal_signal;
  alignas(64) Word generation;
  alignas(64) std::atomic<std::uint64_t> stamps;
  StampRecord records[2];
  alignas(64) std::atomic<std::int64_t> native_ns;
  std::atomic<std::int64_t> interpreter_ns;
};

static_assert(sizeof(PageLayout) <= kPageBytes);
static_assert(offsetof(PageLayout, life) == 64 && offsetof(PageLayout, generation) == 128 &&
              offsetof(PageLayout, stamps) == 192 && offsetof(PageLayout, native_ns) == 320);
static_assert(std::atomic<std::int64_t>::is_always_lock_free);

}  // namespace hpresil
