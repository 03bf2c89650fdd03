// The device functions of a build without CUDA.
#include "base/error.h"
#include "device/cuda_api.h"
#include "device/device.h"
#include "device/driver_api.h"

namespace hpresil {
namespace {

[[noreturn]] void not_built() {
  fail("not built with CUDA: install a CUDA toolkit (nvcc) and build hpresil again");
}

}  // namespace

std::string cuda_toolkit() { return ""; }
std::string cuda_architectures() { return ""; }
std::vector<Device> list_devices() { return {}; }
SelfTest test_device(int /*index*/) { not_built(); }
void register_host_memory(void* /*address*/, std::size_t /*nbytes*/) { not_built(); }
void unregister_host_memory(void* /*address*/) { not_built(); }
CudaApi& cuda_runtime() { not_built(); }
DriverApi& cuda_driver() { not_built(); }

}  // namespace hpresil
