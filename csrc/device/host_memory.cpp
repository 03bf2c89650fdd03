#include "device/cuda_error.h"
#include "device/device.h"

namespace hpresil {

void register_host_memory(void* address, std::size_t nbytes) {
  CUDA_TRY(cudaHostRegister(address, nbytes, cudaHostRegisterPortable));
}

void unregister_host_memory(void* address) { CUDA_TRY(cudaHostUnregister(address)); }

}  // namespace hpresil
