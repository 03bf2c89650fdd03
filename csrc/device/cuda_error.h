// CUDA_TRY(call): throws NativeError with the call, CUDA's name and text for the error, and the place.
#pragma once

#include <cuda_runtime_api.h>

#include <source_location>
#include <string>

#include "base/error.h"

namespace hpresil {

inline void check_cuda(cudaError_t status, const char* call,
                       std::source_location where = std::source_location::current()) {
  if (status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // so that the next call does not report it again
    fail(std::string(call) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status), where);
  }
}

}  // namespace hpresil

#define CUDA_TRY(call) ::hpresil::check_cuda((call), #call)
