// The gate's two kernels, and CUDA's events. One block each: a vote has a ballot a rank, thousands at most.
#include <algorithm>

#include "communicator/device_api.h"
#include "device/cuda_error.h"

namespace hpresil {
namespace {

constexpr int kThreads = 256;

__global__ void close_gate_kernel(float* flag, std::uint64_t* ballots, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    ballots[i] = 0;
  }
  if (threadIdx.x == 0) {
    *flag = 1.0F;
  }
}

__global__ void open_gate_kernel(float* flag, const std::uint64_t* ballots, int count, std::uint64_t token) {
  int missing = 0;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    missing |= ballots[i] == token ? 0 : 1;
  }
  missing = __syncthreads_or(missing);
  if (threadIdx.x == 0) {
    *flag = missing == 0 ? 0.0F : 1.0F;
  }
}

class CudaDevice final : public DeviceApi {
 public:
  void set_device(int device) override { CUDA_TRY(cudaSetDevice(device)); }

  DeviceEvent record(CudaStream stream) override {
    cudaEvent_t event = nullptr;
    CUDA_TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    const cudaError_t status = cudaEventRecord(event, static_cast<cudaStream_t>(stream));
    if (status != cudaSuccess) {
      drop(event);
      check_cuda(status, "cudaEventRecord");
    }
    return event;
  }

  bool done(DeviceEvent event) override {
    const cudaError_t status = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (status == cudaErrorNotReady) {
      static_cast<void>(cudaGetLastError());
      return false;
    }
    check_cuda(status, "cudaEventQuery");
    return true;
  }

  void drop(DeviceEvent event) noexcept override {
    static_cast<void>(cudaEventDestroy(static_cast<cudaEvent_t>(event)));
  }

  void close_gate(float* flag, std::uint64_t* ballots, int count, CudaStream stream) override {
    close_gate_kernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(flag, ballots, count);
    CUDA_TRY(cudaGetLastError());
  }

  void open_gate(float* flag, const std::uint64_t* ballots, int count, std::uint64_t token,
                 CudaStream stream) override {
    open_gate_kernel<<<1, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(flag, ballots, count, token);
    CUDA_TRY(cudaGetLastError());
  }
};

}  // namespace

std::shared_ptr<DeviceApi> cuda_device_api() { return std::make_shared<CudaDevice>(); }

}  // namespace hpresil
