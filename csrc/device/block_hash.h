// checksum/block_hash.h on device memory, with equal values.
#pragma once

#include <cstdint>
#include <vector>

#include "device/cuda_api.h"

namespace hpresil {

// The hash of each block of 1 MiB of `data`, memory of the current device. Runs on `stream` after what is
// queued there, and waits for the result, at most `timeout_s` seconds; throws CudaError, or NativeError at
// the deadline. Takes 24 bytes of device memory a block meanwhile, and for good when the deadline passes: the
// device may still use them.
std::vector<std::uint64_t> device_block_hashes(CudaApi& api, const std::byte* data, std::uint64_t nbytes,
                                               CudaApi::Stream stream, double timeout_s);

}  // namespace hpresil
