#include "checksum/block_hash.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "base/thread.h"
#include "checksum/block_hash_lanes.h"

namespace hpresil {
namespace {

using namespace block_hash_detail;

Accumulate kernel_of(CpuLevel level) {
#if defined(__x86_64__)
  switch (level) {
    case CpuLevel::portable:
      return kPortable;
    case CpuLevel::sse42:
      return kSse42;
    case CpuLevel::avx2:
      return kAvx2;
    case CpuLevel::avx512:
      return kAvx512;
  }
#else
  static_cast<void>(level);
#endif
  return kPortable;
}

std::uint64_t segment_hash(const std::byte* data, std::size_t nbytes, Accumulate accumulate) {
  alignas(64) std::uint64_t lanes[kLanes] = {};
  const std::size_t stripes = nbytes / kStripeBytes;
  accumulate(lanes, data, static_cast<unsigned>(stripes));
  const std::size_t rest = nbytes - stripes * kStripeBytes;
  if (rest > 0) {
    // The last stripe is filled up with zeros and keeps its place, so its keys are not those of stripe 0.
    const std::uint64_t* keys = kKey.at + stripes;
    std::uint64_t words[kLanes] = {};
    std::memcpy(words, data + stripes * kStripeBytes, rest);
    for (unsigned i = 0; i < kLanes; ++i) {
      const std::uint64_t x = words[i] ^ keys[i];
      lanes[i] += (x & 0xFFFFFFFF) * (x >> 32) + words[i ^ 1];
    }
  }
  std::uint64_t sum = 0;
  for (unsigned i = 0; i < kLanes; i += 2) {
    sum += fold(lanes[i] ^ kKey.at[kFoldKey + i], lanes[i + 1] ^ kKey.at[kFoldKey + i + 1]);
  }
  return sum;
}

std::uint64_t hash_with(const std::byte* data, std::size_t nbytes, Accumulate accumulate) {
  std::uint64_t sum = 0;
  for (std::size_t at = 0; at < nbytes; at += kSegmentBytes) {
    sum +=
        placed(segment_hash(data + at, std::min(kSegmentBytes, nbytes - at), accumulate), at / kSegmentBytes);
  }
  return finished(sum, nbytes);
}

}  // namespace

std::uint64_t block_hash(const std::byte* data, std::size_t nbytes, CpuLevel level) {
  expects(nbytes <= kHashBlockBytes, "a block has at most 1 MiB");
  return hash_with(data, nbytes, kernel_of(level));
}

std::vector<std::uint64_t> block_hashes(const std::byte* data, std::size_t nbytes, int threads,
                                        CpuLevel level) {
  expects(threads >= 1, "threads must be at least 1");
  const Accumulate accumulate = kernel_of(level);
  std::vector<std::uint64_t> hashes((nbytes + kHashBlockBytes - 1) / kHashBlockBytes);
  run_parallel(threads, hashes.size(), [&](std::size_t i) {
    const std::size_t at = i * kHashBlockBytes;
    hashes[i] = hash_with(data + at, std::min(kHashBlockBytes, nbytes - at), accumulate);
  });
  return hashes;
}

}  // namespace hpresil
