// The device API of a build without CUDA.
#include "base/error.h"
#include "communicator/device_api.h"

namespace hpresil {

std::shared_ptr<DeviceApi> cuda_device_api() {
  fail("not built with CUDA: install a CUDA toolkit (nvcc) and build hpresil again");
}

}  // namespace hpresil
