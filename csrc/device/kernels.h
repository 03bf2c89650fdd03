// The kernels behind the names of cuda_api.h: the host symbol of each, offered by its .cu file.
//
//   gather        (const GatherChunk* chunks, std::byte* staging)               one block a chunk
//   hash_blocks   (const HashBlock* blocks, std::uint64_t* hashes)              one block a hash
//   exclusive_or  (std::byte* to, const std::byte* from, const std::byte* previous, std::uint64_t nbytes)
//   shuffle, unshuffle
//                 (std::byte* to, const std::byte* from, std::uint64_t nbytes, std::uint32_t element_bytes)
//
// The last three take any number of blocks. All of them take blocks of kKernelThreads threads.
#pragma once

#include "device/cuda_api.h"

namespace hpresil {

const void* gather_symbol();
const void* hash_blocks_symbol();
const void* exclusive_or_symbol();
const void* shuffle_symbol(bool back);

inline const void* kernel_symbol(DeviceKernel kernel) {
  switch (kernel) {
    case DeviceKernel::gather:
      return gather_symbol();
    case DeviceKernel::hash_blocks:
      return hash_blocks_symbol();
    case DeviceKernel::exclusive_or:
      return exclusive_or_symbol();
    case DeviceKernel::shuffle:
      return shuffle_symbol(false);
    case DeviceKernel::unshuffle:
      return shuffle_symbol(true);
  }
  return nullptr;
}

}  // namespace hpresil
