// The kernels behind the names of cuda_api.h: the host symbol of each, offered by its .cu file.
//
//   gather        (const GatherChunk* chunks, std::byte* staging)               one block a chunk
//   hash_blocks   (const HashBlock* blocks, std::uint64_t* hashes)              one block a hash
//   exclusive_or  (std::byte* to, const std::byte* from, const std::byte* previous, std::uint64_t nbytes)
//   shuffle, unshuffle
//                 (std::byte* to, const std::byte* from, std::uint64_t nbytes, std::uint32_t element_bytes)
//   close_gate    (float* flag, std::uint64_t* ballots, int count)              one block
//   open_gate     (float* flag, const std::uint64_t* ballots, int count, std::uint64_t token)   one block
//
// exclusive_or, shuffle and unshuffle take any number of blocks. All take blocks of kKernelThreads threads.
#pragma once

#include "device/cuda_api.h"

namespace hpresil {

const void* gather_symbol();
const void* hash_blocks_symbol();
const void* exclusive_or_symbol();
const void* shuffle_symbol(bool back);
const void* close_gate_symbol();
const void* open_gate_symbol();

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
    case DeviceKernel::close_gate:
      return close_gate_symbol();
    case DeviceKernel::open_gate:
      return open_gate_symbol();
  }
  return nullptr;
}

}  // namespace hpresil
