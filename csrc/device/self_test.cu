#include <cstdint>
#include <memory>
#include <vector>

#include "device/cuda_error.h"
#include "device/device.h"

namespace hpresil {
namespace {

constexpr std::uint32_t kCount = 1U << 22;
constexpr std::size_t kBytes = kCount * sizeof(std::uint32_t);

__host__ __device__ std::uint32_t expected(std::uint32_t i) { return i * 2654435761U ^ (i >> 7); }

__global__ void fill(std::uint32_t* to, std::uint32_t count) {
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    to[i] = expected(i);
  }
}

struct FreeDevice {
  void operator()(std::uint32_t* memory) const { static_cast<void>(cudaFree(memory)); }
};
struct Unregister {
  void operator()(std::uint32_t* memory) const { static_cast<void>(cudaHostUnregister(memory)); }
};
struct DestroyEvent {
  void operator()(CUevent_st* event) const { static_cast<void>(cudaEventDestroy(event)); }
};
using Event = std::unique_ptr<CUevent_st, DestroyEvent>;

Event make_event() {
  cudaEvent_t event = nullptr;
  CUDA_TRY(cudaEventCreate(&event));
  return Event(event);
}

class CurrentDevice {
 public:
  explicit CurrentDevice(int index) {
    CUDA_TRY(cudaGetDevice(&before_));
    CUDA_TRY(cudaSetDevice(index));
  }
  ~CurrentDevice() { static_cast<void>(cudaSetDevice(before_)); }

 private:
  int before_ = 0;
};

std::string difference(const std::vector<std::uint32_t>& found) {
  for (std::uint32_t i = 0; i < kCount; ++i) {
    if (found[i] != expected(i)) {
      return "element " + std::to_string(i) + " is " + std::to_string(found[i]) + ", not " +
             std::to_string(expected(i));
    }
  }
  return "";
}

}  // namespace

SelfTest test_device(int index) {
  const CurrentDevice current(index);
  std::vector<std::uint32_t> host(kCount);
  register_host_memory(host.data(), kBytes);
  const std::unique_ptr<std::uint32_t, Unregister> registered(host.data());
  std::uint32_t* memory = nullptr;
  CUDA_TRY(cudaMalloc(&memory, kBytes));
  const std::unique_ptr<std::uint32_t, FreeDevice> device(memory);
  const Event begin = make_event();
  const Event end = make_event();
  fill<<<256, 256>>>(memory, kCount);
  CUDA_TRY(cudaGetLastError());
  CUDA_TRY(cudaEventRecord(begin.get()));
  CUDA_TRY(cudaMemcpyAsync(host.data(), memory, kBytes, cudaMemcpyDeviceToHost));
  CUDA_TRY(cudaEventRecord(end.get()));
  CUDA_TRY(cudaEventSynchronize(end.get()));
  float milliseconds = 0;
  CUDA_TRY(cudaEventElapsedTime(&milliseconds, begin.get(), end.get()));
  const std::string problem = difference(host);
  return {problem.empty(), static_cast<double>(kBytes) / (static_cast<double>(milliseconds) * 1e6), problem};
}

}  // namespace hpresil
