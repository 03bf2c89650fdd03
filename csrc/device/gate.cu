// The commit gate's two kernels. One block each: a vote has a ballot a rank, thousands at most.
#include "device/kernels.h"

namespace hpresil {
namespace {

__global__ void close_gate(float* flag, std::uint64_t* ballots, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    ballots[i] = 0;
  }
  if (threadIdx.x == 0) {
    *flag = 1.0F;
  }
}

__global__ void open_gate(float* flag, const std::uint64_t* ballots, int count, std::uint64_t token) {
  int missing = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += static_cast<int>(blockDim.x)) {
    missing |= ballots[i] == token ? 0 : 1;
  }
  missing = __syncthreads_or(missing);
  if (threadIdx.x == 0) {
    *flag = missing == 0 ? 0.0F : 1.0F;
  }
}

}  // namespace

const void* close_gate_symbol() { return reinterpret_cast<const void*>(&close_gate); }
const void* open_gate_symbol() { return reinterpret_cast<const void*>(&open_gate); }

}  // namespace hpresil
