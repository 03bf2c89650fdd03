#include <cstdio>

#include "device/cuda_error.h"
#include "device/device.h"

namespace hpresil {
namespace {

std::string text_of(const cudaUUID_t& uuid) {
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    char hex[3];
    std::snprintf(hex, sizeof(hex), "%02x", static_cast<unsigned char>(uuid.bytes[i]));
    text += (i == 4 || i == 6 || i == 8 || i == 10) ? "-" : "";
    text += hex;
  }
  return text;
}

bool no_gpu(cudaError_t status) {
  return status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice ||
         status == cudaErrorStubLibrary || status == cudaErrorSystemDriverMismatch;
}

}  // namespace

std::string cuda_toolkit() {
  return std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
}

std::string cuda_architectures() { return HPRESIL_CUDA_ARCHITECTURES; }

std::vector<Device> list_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (no_gpu(status)) {
    static_cast<void>(cudaGetLastError());
    return {};
  }
  CUDA_TRY(status);
  int driver = 0;
  int runtime = 0;
  CUDA_TRY(cudaDriverGetVersion(&driver));
  CUDA_TRY(cudaRuntimeGetVersion(&runtime));
  std::vector<Device> devices;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp found{};
    CUDA_TRY(cudaGetDeviceProperties(&found, index));
    devices.push_back({index, found.name, found.major, found.minor, found.totalGlobalMem,
                       found.multiProcessorCount, text_of(found.uuid), driver, runtime});
  }
  return devices;
}

}  // namespace hpresil
