#include "codec/xor.h"

#include <algorithm>

#include "base/error.h"
#include "base/thread.h"
#include "codec/dispatch.h"

namespace hpresil {
namespace {

constexpr std::size_t kPartBytes = std::size_t{1} << 20;

bool same_or_apart(const std::byte* to, const std::byte* from, std::size_t nbytes) {
  return to == from || !codec_detail::overlap(to, from, nbytes);
}

}  // namespace

void xor_delta(std::byte* to, const std::byte* from, const std::byte* previous, std::size_t nbytes,
               int threads, CpuLevel level) {
  expects(threads >= 1, "threads must be at least 1");
  expects(same_or_apart(to, from, nbytes) && same_or_apart(to, previous, nbytes),
          "the destination of a delta overlaps a source without being it");
  const codec_detail::Kernel& kernel = codec_detail::kernel_of(level);
  run_parallel(threads, (nbytes + kPartBytes - 1) / kPartBytes, [&](std::size_t part) {
    const std::size_t at = part * kPartBytes;
    kernel.exclusive_or(to + at, from + at, previous + at, std::min(kPartBytes, nbytes - at));
  });
}

}  // namespace hpresil
