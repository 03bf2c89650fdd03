// What kernels are told to do, one entry a block of threads; read by host and device code.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hpresil {

constexpr unsigned kKernelThreads = 256;
constexpr std::size_t kGatherChunkBytes = std::size_t{32} << 10;

// At most kGatherChunkBytes of a small tensor, and where they go in the staging memory.
struct GatherChunk {
  const std::byte* from;
  std::uint64_t offset;
  std::uint64_t nbytes;
};

// One block of at most kHashBlockBytes.
struct HashBlock {
  const std::byte* data;
  std::uint64_t nbytes;
};

}  // namespace hpresil
