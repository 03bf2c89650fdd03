// csrc/codec on device memory: the same bytes as from the functions on the host.
//
// Work is queued on `stream` of the current device and not waited for. Errors: NativeError for bad
// arguments, CudaError from the launch. Thread safe as the runtime is.
#pragma once

#include <cstdint>

#include "device/cuda_api.h"

namespace hpresil {

// to[i] = from[i] ^ previous[i]; `to` may be exactly one of the sources.
void device_xor_delta(CudaApi& api, std::byte* to, const std::byte* from, const std::byte* previous,
                      std::uint64_t nbytes, CudaApi::Stream stream);

// Into byte planes of elements of 1, 2, 4 or 8 bytes, or with `back` out of them. Not in place.
void device_shuffle(CudaApi& api, std::byte* to, const std::byte* from, std::uint64_t nbytes,
                    std::uint32_t element_bytes, bool back, CudaApi::Stream stream);

}  // namespace hpresil
