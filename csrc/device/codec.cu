// The delta and the byte planes of csrc/codec on the device, with the same results.
#include <cstddef>
#include <cstdint>

#include "device/kernels.h"

namespace hpresil {
namespace {

__device__ std::uint64_t first() { return std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; }
__device__ std::uint64_t step() { return std::uint64_t{gridDim.x} * blockDim.x; }

__global__ void exclusive_or(std::byte* to, const std::byte* from, const std::byte* previous,
                             std::uint64_t nbytes) {
  const std::uint64_t places = reinterpret_cast<std::uint64_t>(to) | reinterpret_cast<std::uint64_t>(from) |
                               reinterpret_cast<std::uint64_t>(previous);
  const std::uint64_t wide = places % 16 == 0 ? nbytes / 16 : 0;
  for (std::uint64_t i = first(); i < wide; i += step()) {
    const uint4 a = reinterpret_cast<const uint4*>(from)[i];
    const uint4 b = reinterpret_cast<const uint4*>(previous)[i];
    reinterpret_cast<uint4*>(to)[i] = make_uint4(a.x ^ b.x, a.y ^ b.y, a.z ^ b.z, a.w ^ b.w);
  }
  for (std::uint64_t i = wide * 16 + first(); i < nbytes; i += step()) {
    to[i] =
        static_cast<std::byte>(static_cast<unsigned char>(from[i]) ^ static_cast<unsigned char>(previous[i]));
  }
}

// A warp reads neighbouring elements and writes 32 neighbouring bytes of each plane, or the other way.
template <bool kBack>
__global__ void planes(std::byte* to, const std::byte* from, std::uint64_t nbytes,
                       std::uint32_t element_bytes) {
  const std::uint64_t count = nbytes / element_bytes;
  for (std::uint64_t i = first(); i < count; i += step()) {
    for (std::uint32_t plane = 0; plane < element_bytes; ++plane) {
      const std::uint64_t together = i * element_bytes + plane;
      const std::uint64_t apart = plane * count + i;
      to[kBack ? together : apart] = from[kBack ? apart : together];
    }
  }
  for (std::uint64_t i = count * element_bytes + first(); i < nbytes; i += step()) {
    to[i] = from[i];
  }
}

}  // namespace

const void* exclusive_or_symbol() { return reinterpret_cast<const void*>(&exclusive_or); }

const void* shuffle_symbol(bool back) {
  return back ? reinterpret_cast<const void*>(&planes<true>) : reinterpret_cast<const void*>(&planes<false>);
}

}  // namespace hpresil
