// Plain IEEE arithmetic for a scope, whatever the calling thread has set.
//
// Flush-to-zero and denormals-are-zero are per thread, and torch.set_flush_denormal changes them: the
// same add would give other bits in another thread. The scope rounds to nearest, keeps denormals and
// masks exceptions, then puts back what was there. Work inside must be behind a call that the
// compiler cannot look through, since it does not know that the mode matters.
#pragma once

#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#endif

namespace hpresil {

class PlainFloatMode {
 public:
#if defined(__x86_64__)
  PlainFloatMode() : before_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~PlainFloatMode() { _mm_setcsr(before_); }
#elif defined(__aarch64__)
  PlainFloatMode() {
    asm volatile("mrs %0, fpcr" : "=r"(before_));
    asm volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));
  }
  ~PlainFloatMode() { asm volatile("msr fpcr, %0" : : "r"(before_)); }
#else
#error "say here how this architecture keeps denormals"
#endif
  PlainFloatMode(const PlainFloatMode&) = delete;
  PlainFloatMode& operator=(const PlainFloatMode&) = delete;

 private:
#if defined(__x86_64__)
  unsigned before_;
#elif defined(__aarch64__)
  std::uint64_t before_ = 0;
#endif
};

}  // namespace hpresil
