// The kernels of a level, and the check that ranges do not overlap.
#pragma once

#include <cstdint>

#include "base/cpu.h"
#include "codec/kernel.h"

namespace hpresil::codec_detail {

inline const Kernel& kernel_of(CpuLevel level) {
#if defined(__x86_64__)
  switch (level) {
    case CpuLevel::portable:
      return kPortable;
    case CpuLevel::sse42:
      return kSse42;
    case CpuLevel::avx2:
    case CpuLevel::avx512:  // limited by memory already
      return kAvx2;
  }
#else
  static_cast<void>(level);
#endif
  return kPortable;
}

inline bool overlap(const std::byte* a, const std::byte* b, std::size_t nbytes) {
  const auto x = reinterpret_cast<std::uintptr_t>(a);
  const auto y = reinterpret_cast<std::uintptr_t>(b);
  return (x > y ? x - y : y - x) < nbytes;
}

}  // namespace hpresil::codec_detail
