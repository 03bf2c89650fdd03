// The kernels that one instruction-set level offers; states are raw CRC registers (not inverted).
#pragma once

#include <cstddef>
#include <cstdint>

namespace hpresil::crc32c_detail {

struct Kernel {
  // Extends `state` over `nbytes` of `data`.
  std::uint32_t (*extend)(std::uint32_t state, const std::byte* data, std::size_t nbytes);
  // The same, and copies them to `to`. Ranges must not overlap.
  std::uint32_t (*copy)(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t nbytes);
  // The copy alone.
  void (*stream)(std::byte* to, const std::byte* from, std::size_t nbytes);
};

extern const Kernel kPortable;
#if defined(__x86_64__)
extern const Kernel kSse42;
extern const Kernel kAvx2;
extern const Kernel kAvx512;
#endif

}  // namespace hpresil::crc32c_detail
