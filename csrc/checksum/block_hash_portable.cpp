// The lanes of the block hash in plain C++.
#include <cstring>

#include "checksum/block_hash_lanes.h"

namespace hpresil::block_hash_detail {
namespace {

void accumulate(std::uint64_t* lanes, const std::byte* data, unsigned stripes) {
  for (unsigned s = 0; s < stripes; ++s, data += kStripeBytes) {
    const std::uint64_t* keys = kKey.at + s;
    for (unsigned i = 0; i < kLanes; i += 2) {
      std::uint64_t even = 0;
      std::uint64_t odd = 0;
      std::memcpy(&even, data + 8 * std::size_t{i}, 8);
      std::memcpy(&odd, data + 8 * std::size_t{i} + 8, 8);
      const std::uint64_t x = even ^ keys[i];
      const std::uint64_t y = odd ^ keys[i + 1];
      lanes[i] += (x & 0xFFFFFFFF) * (x >> 32) + odd;
      lanes[i + 1] += (y & 0xFFFFFFFF) * (y >> 32) + even;
    }
  }
}

}  // namespace

const Accumulate kPortable = accumulate;

}  // namespace hpresil::block_hash_detail
