// Constants and arithmetic of the block hash, for the CPU's kernels and the GPU's.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define HPRESIL_EVERYWHERE __host__ __device__
#else
#define HPRESIL_EVERYWHERE
#endif

namespace hpresil::block_hash_detail {

constexpr unsigned kLanes = 32;
constexpr unsigned kStripes = 64;  // a segment
constexpr std::size_t kStripeBytes = kLanes * 8;
constexpr std::size_t kSegmentBytes = kStripeBytes * kStripes;
constexpr unsigned kFoldKey = kStripes + kLanes;  // the first of the keys that lanes are folded with
constexpr unsigned kKeys = kFoldKey + kLanes;

constexpr std::uint64_t kGolden = 0x9E3779B97F4A7C15;  // 2^64 over the golden ratio, odd
constexpr std::uint64_t kSeed = 0x6870726573696C31;    // "hpresil1"

// SplitMix64's output function: a bijection in which every bit of the input reaches every bit.
HPRESIL_EVERYWHERE constexpr std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

HPRESIL_EVERYWHERE constexpr std::uint64_t key(unsigned k) {
  return mix((std::uint64_t{k} + 1) * kGolden + kSeed);
}

// What a segment adds to its block's sum.
HPRESIL_EVERYWHERE constexpr std::uint64_t placed(std::uint64_t segment, std::uint64_t number) {
  return mix(segment + (number + 1) * kGolden);
}

HPRESIL_EVERYWHERE constexpr std::uint64_t finished(std::uint64_t sum, std::uint64_t nbytes) {
  return mix(sum + nbytes * kGolden);
}

// The halves of a * b, xored.
HPRESIL_EVERYWHERE inline std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
#if defined(__CUDA_ARCH__)
  return (a * b) ^ __umul64hi(a, b);
#else
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(a) * b;
  return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
#endif
}

// A plain array, so that no inline function of the standard library is compiled for a newer machine.
struct Keys {
  constexpr Keys() {
    for (unsigned k = 0; k < kKeys; ++k) {
      at[k] = key(k);
    }
  }
  std::uint64_t at[kKeys] = {};
};

#if !defined(__CUDACC__)
alignas(64) inline constexpr Keys kKey;

// One instruction-set level: adds `stripes` stripes (at most kStripes) to the lanes. Any address.
using Accumulate = void (*)(std::uint64_t* lanes, const std::byte* data, unsigned stripes);

extern const Accumulate kPortable;
#if defined(__x86_64__)
extern const Accumulate kSse42;
extern const Accumulate kAvx2;
extern const Accumulate kAvx512;
#endif
#endif

}  // namespace hpresil::block_hash_detail
