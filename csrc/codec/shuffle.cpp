#include "codec/shuffle.h"

#include <cstring>

#include "base/error.h"
#include "codec/dispatch.h"

namespace hpresil {
namespace {

using codec_detail::Kernel;

// Which kernel an element size has, after the arguments were checked.
std::size_t place_of(const std::byte* to, const std::byte* from, std::size_t nbytes,
                     std::size_t element_bytes) {
  expects(element_bytes == 1 || element_bytes == 2 || element_bytes == 4 || element_bytes == 8,
          "an element has 1, 2, 4 or 8 bytes");
  expects(!codec_detail::overlap(to, from, nbytes), "a shuffle is not done in place: the ranges overlap");
  return element_bytes == 2 ? 0 : element_bytes == 4 ? 1 : 2;
}

void copy(std::byte* to, const std::byte* from, std::size_t nbytes) {
  if (nbytes > 0) {
    std::memcpy(to, from, nbytes);
  }
}

}  // namespace

void shuffle(std::byte* to, const std::byte* from, std::size_t nbytes, std::size_t element_bytes,
             CpuLevel level) {
  const std::size_t place = place_of(to, from, nbytes, element_bytes);
  const std::size_t count = element_bytes == 1 ? 0 : nbytes / element_bytes;
  std::size_t done = count == 0 ? 0 : codec_detail::kernel_of(level).split[place](to, from, count, count);
  for (; done < count; ++done) {
    for (std::size_t plane = 0; plane < element_bytes; ++plane) {
      to[plane * count + done] = from[done * element_bytes + plane];
    }
  }
  copy(to + count * element_bytes, from + count * element_bytes, nbytes - count * element_bytes);
}

void unshuffle(std::byte* to, const std::byte* from, std::size_t nbytes, std::size_t element_bytes,
               CpuLevel level) {
  const std::size_t place = place_of(to, from, nbytes, element_bytes);
  const std::size_t count = element_bytes == 1 ? 0 : nbytes / element_bytes;
  std::size_t done = count == 0 ? 0 : codec_detail::kernel_of(level).join[place](to, from, count, count);
  for (; done < count; ++done) {
    for (std::size_t plane = 0; plane < element_bytes; ++plane) {
      to[done * element_bytes + plane] = from[plane * count + done];
    }
  }
  copy(to + count * element_bytes, from + count * element_bytes, nbytes - count * element_bytes);
}

}  // namespace hpresil
