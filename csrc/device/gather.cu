// Packs many small tensors into one piece of memory: one launch and one copy to the host in place of one
// copy, and its microseconds of submission, for each.
#include "device/kernels.h"
#include "device/work_lists.h"

namespace hpresil {
namespace {

template <typename Unit>
__device__ void copy_units(std::byte* to, const std::byte* from, std::uint64_t nbytes) {
  const std::uint64_t units = nbytes / sizeof(Unit);
  for (std::uint64_t i = threadIdx.x; i < units; i += blockDim.x) {
    reinterpret_cast<Unit*>(to)[i] = reinterpret_cast<const Unit*>(from)[i];
  }
  for (std::uint64_t i = units * sizeof(Unit) + threadIdx.x; i < nbytes; i += blockDim.x) {
    to[i] = from[i];
  }
}

__global__ void gather(const GatherChunk* chunks, std::byte* staging) {
  const GatherChunk chunk = chunks[blockIdx.x];
  std::byte* const to = staging + chunk.offset;
  const std::uint64_t places =
      reinterpret_cast<std::uint64_t>(to) | reinterpret_cast<std::uint64_t>(chunk.from);
  if (places % 16 == 0) {
    copy_units<uint4>(to, chunk.from, chunk.nbytes);
  } else if (places % 4 == 0) {
    copy_units<std::uint32_t>(to, chunk.from, chunk.nbytes);
  } else {
    copy_units<unsigned char>(to, chunk.from, chunk.nbytes);
  }
}

}  // namespace

const void* gather_symbol() { return reinterpret_cast<const void*>(&gather); }

}  // namespace hpresil
