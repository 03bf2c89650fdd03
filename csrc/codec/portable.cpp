// Plain loops; the planes of many elements at once are left to the caller's loop.
#include <cstdint>
#include <cstring>

#include "codec/kernel.h"

namespace hpresil::codec_detail {
namespace {

void exclusive_or(std::byte* to, const std::byte* from, const std::byte* previous, std::size_t nbytes) {
  std::size_t at = 0;
  for (; at + 8 <= nbytes; at += 8) {
    std::uint64_t a = 0;
    std::uint64_t b = 0;
    std::memcpy(&a, from + at, 8);
    std::memcpy(&b, previous + at, 8);
    a ^= b;
    std::memcpy(to + at, &a, 8);
  }
  for (; at < nbytes; ++at) {
    to[at] = from[at] ^ previous[at];
  }
}

std::size_t none(std::byte* /*to*/, const std::byte* /*from*/, std::size_t /*count*/,
                 std::size_t /*stride*/) {
  return 0;
}

}  // namespace

const Kernel kPortable{exclusive_or, {none, none, none}, {none, none, none}};

}  // namespace hpresil::codec_detail
