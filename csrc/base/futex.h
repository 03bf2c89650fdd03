// Waiting on a 32-bit word in memory shared between processes.
//
// Non-private futexes: the same word may be mapped at different addresses. Every wait is bounded.
#pragma once

#include <atomic>
#include <cstdint>

namespace hpresil {

using Word = std::atomic<std::uint32_t>;
static_assert(Word::is_always_lock_free && sizeof(Word) == 4, "a futex is a plain 32-bit word");

// Returns when `word` no longer holds `expected`, on a wake-up, on a signal, or after `timeout_ns`.
// The caller looks at the word again. Async-signal-safe.
void wait_on(const Word& word, std::uint32_t expected, std::int64_t timeout_ns) noexcept;

// Wakes every waiter. Async-signal-safe.
void wake_all(Word& word) noexcept;

}  // namespace hpresil
