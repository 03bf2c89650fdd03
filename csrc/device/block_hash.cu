// The block hash of checksum/block_hash.h on the device, with the same values.
//
// A block of threads hashes one block of memory, a warp one segment at a time, a thread one lane: a warp
// reads one stripe of 256 bytes at once. Segments are summed, so their order does not matter.
#include "checksum/block_hash_lanes.h"
#include "device/kernels.h"
#include "device/work_lists.h"

namespace hpresil {
namespace {

using namespace block_hash_detail;

constexpr unsigned kWarp = 32;
constexpr unsigned kAll = 0xFFFFFFFF;
static_assert(kLanes == kWarp, "a thread of a warp is a lane of the hash");

// A word at an address that is a multiple of Unit's size.
template <typename Unit>
__device__ std::uint64_t load(const std::byte* from) {
  std::uint64_t word = 0;
  for (unsigned i = 0; i < 8 / sizeof(Unit); ++i) {
    word |= static_cast<std::uint64_t>(reinterpret_cast<const Unit*>(from)[i]) << (8 * sizeof(Unit) * i);
  }
  return word;
}

// The word at `at` of data that ends at `nbytes`; zeros follow.
__device__ std::uint64_t load_last(const std::byte* data, std::uint64_t at, std::uint64_t nbytes) {
  std::uint64_t word = 0;
  for (unsigned i = 0; i < 8 && at + i < nbytes; ++i) {
    word |= static_cast<std::uint64_t>(reinterpret_cast<const unsigned char*>(data)[at + i]) << (8 * i);
  }
  return word;
}

struct Lane {
  std::uint64_t products = 0;
  std::uint64_t words = 0;

  __device__ void take(std::uint64_t word, std::uint64_t key_of_word) {
    const std::uint64_t x = word ^ key_of_word;
    products += (x & 0xFFFFFFFF) * (x >> 32);
    words += word;
  }
  // Its neighbour's words are added at the end rather than one by one: the sums are the same.
  __device__ std::uint64_t value() const { return products + __shfl_xor_sync(kAll, words, 1); }
};

template <typename Unit>
__device__ std::uint64_t segment_hash(const std::byte* data, std::uint64_t nbytes,
                                      const std::uint64_t* keys) {
  const unsigned i = threadIdx.x % kWarp;
  const unsigned stripes = static_cast<unsigned>(nbytes / kStripeBytes);
  Lane lane;
#pragma unroll 8
  for (unsigned s = 0; s < stripes; ++s) {
    lane.take(load<Unit>(data + s * kStripeBytes + i * 8), keys[s + i]);
  }
  if (nbytes % kStripeBytes != 0) {
    lane.take(load_last(data, stripes * kStripeBytes + i * 8, nbytes), keys[stripes + i]);
  }
  const std::uint64_t mine = lane.value() ^ keys[kFoldKey + i];
  const std::uint64_t neighbours = __shfl_xor_sync(kAll, mine, 1);
  std::uint64_t sum = i % 2 == 0 ? fold(mine, neighbours) : 0;
  for (unsigned width = kWarp / 2; width > 0; width /= 2) {
    sum += __shfl_xor_sync(kAll, sum, width);
  }
  return sum;
}

template <typename Unit>
__device__ std::uint64_t segments_of_warp(const HashBlock& block, const std::uint64_t* keys) {
  std::uint64_t sum = 0;
  for (std::uint64_t n = threadIdx.x / kWarp; n * kSegmentBytes < block.nbytes; n += blockDim.x / kWarp) {
    const std::uint64_t rest = block.nbytes - n * kSegmentBytes;
    const std::uint64_t nbytes = rest < kSegmentBytes ? rest : kSegmentBytes;
    sum += placed(segment_hash<Unit>(block.data + n * kSegmentBytes, nbytes, keys), n);
  }
  return sum;
}

__device__ std::uint64_t hash_of_warp(const HashBlock& block, const std::uint64_t* keys) {
  const auto place = reinterpret_cast<std::uint64_t>(block.data);
  if (place % 8 == 0) {
    return segments_of_warp<std::uint64_t>(block, keys);
  }
  if (place % 4 == 0) {
    return segments_of_warp<std::uint32_t>(block, keys);
  }
  return place % 2 == 0 ? segments_of_warp<std::uint16_t>(block, keys)
                        : segments_of_warp<std::uint8_t>(block, keys);
}

__global__ void hash_blocks(const HashBlock* blocks, std::uint64_t* hashes) {
  __shared__ std::uint64_t keys[kKeys];
  __shared__ unsigned long long total;
  for (unsigned k = threadIdx.x; k < kKeys; k += blockDim.x) {
    keys[k] = key(k);
  }
  if (threadIdx.x == 0) {
    total = 0;
  }
  __syncthreads();
  const HashBlock block = blocks[blockIdx.x];
  const std::uint64_t sum = hash_of_warp(block, keys);
  if (threadIdx.x % kWarp == 0) {
    atomicAdd(&total, static_cast<unsigned long long>(sum));
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    hashes[blockIdx.x] = finished(total, block.nbytes);
  }
}

}  // namespace

const void* hash_blocks_symbol() { return reinterpret_cast<const void*>(&hash_blocks); }

}  // namespace hpresil
