// The kernels that one instruction-set level offers.
#pragma once

#include <cstddef>

namespace hpresil::codec_detail {

// to[i] = from[i] ^ previous[i]; `to` may be `from` or `previous`.
using Xor = void (*)(std::byte* to, const std::byte* from, const std::byte* previous, std::size_t nbytes);

// As many elements as the kernel takes at once, `stride` bytes from plane to plane; returns how many of
// `count` were done, the rest is the caller's.
using Planes = std::size_t (*)(std::byte* to, const std::byte* from, std::size_t count, std::size_t stride);

struct Kernel {
  Xor exclusive_or;
  Planes split[3];  // of elements of 2, 4 and 8 bytes into planes
  Planes join[3];   // and back
};

extern const Kernel kPortable;
#if defined(__x86_64__)
extern const Kernel kSse42;
extern const Kernel kAvx2;
#endif

}  // namespace hpresil::codec_detail
