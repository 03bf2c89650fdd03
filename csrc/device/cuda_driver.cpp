// The interface over the CUDA driver, call for call. libcuda.so.1 comes with the driver, not with the
// toolkit.
#include <cuda.h>
#include <dlfcn.h>

#include "device/driver_api.h"

namespace hpresil {
namespace {

// The driver's names carry versions, which cuda.h hides behind macros: both the type and the name below are
// those this module was compiled with.
#define HPRESIL_TEXT(name) #name
#define HPRESIL_SYMBOL(name) \
  decltype(&::name) name##_ = reinterpret_cast<decltype(&::name)>(find(HPRESIL_TEXT(name)))
#define TRY(call, ...) check(call##_(__VA_ARGS__), #call)

CudaFault fault_of(CUresult status) {
  switch (status) {
    case CUDA_ERROR_OUT_OF_MEMORY:
      return CudaFault::out_of_memory;
    case CUDA_ERROR_NOT_SUPPORTED:
    case CUDA_ERROR_NOT_PERMITTED:
    case CUDA_ERROR_INVALID_VALUE:
    case CUDA_ERROR_INVALID_DEVICE:
      return CudaFault::refused;
    case CUDA_ERROR_ILLEGAL_ADDRESS:
    case CUDA_ERROR_MISALIGNED_ADDRESS:
    case CUDA_ERROR_LAUNCH_FAILED:
    case CUDA_ERROR_LAUNCH_TIMEOUT:
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
    case CUDA_ERROR_HARDWARE_STACK_ERROR:
    case CUDA_ERROR_ASSERT:
    case CUDA_ERROR_ECC_UNCORRECTABLE:
    case CUDA_ERROR_NVLINK_UNCORRECTABLE:
    case CUDA_ERROR_CONTEXT_IS_DESTROYED:
    case CUDA_ERROR_DEINITIALIZED:
      return CudaFault::context_lost;
    default:
      return CudaFault::failed;
  }
}

// Stays open for the life of the process.
void* open_library() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    fail(std::string("no NVIDIA driver here (") + (why == nullptr ? "libcuda.so.1" : why) +
         "): install one; without NVIDIA devices no memory of theirs can be held");
  }
  return library;
}

CUdeviceptr number(const std::byte* address) { return reinterpret_cast<CUdeviceptr>(address); }

CUmemLocation on(int device) {
  CUmemLocation place{};
  place.type = CU_MEM_LOCATION_TYPE_DEVICE;
  place.id = device;
  return place;
}

CUmemAllocationProp passable(int device) {
  CUmemAllocationProp wanted{};
  wanted.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  wanted.requestedHandleTypes = CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR;
  wanted.location = on(device);
  return wanted;
}

class CudaDriver final : public DriverApi {
 public:
  CudaDriver() { TRY(cuInit, 0); }

  void require_passing(int device) override {
    for (const auto what : {CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
                            CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED}) {
      int supported = 0;
      TRY(cuDeviceGetAttribute, &supported, what, at(device));
      if (supported == 0) {
        throw CudaError(CudaFault::refused,
                        "device " + std::to_string(device) + " cannot pass memory as a file descriptor");
      }
    }
  }
  std::size_t granularity(int device) override {
    const CUmemAllocationProp wanted = passable(device);
    std::size_t nbytes = 0;
    TRY(cuMemGetAllocationGranularity, &nbytes, &wanted, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    return nbytes;
  }

  Block create(int device, std::size_t nbytes) override {
    const CUmemAllocationProp wanted = passable(device);
    CUmemGenericAllocationHandle block = 0;
    TRY(cuMemCreate, &block, nbytes, &wanted, 0);
    return block;
  }
  Fd export_block(Block block) override {
    int fd = -1;
    TRY(cuMemExportToShareableHandle, &fd, block, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 0);
    return Fd(fd);
  }
  Block import_block(int fd) override {
    CUmemGenericAllocationHandle block = 0;
    auto* const handle = reinterpret_cast<void*>(static_cast<std::uintptr_t>(fd));
    TRY(cuMemImportFromShareableHandle, &block, handle, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR);
    return block;
  }
  void release(Block block) noexcept override { cuMemRelease_(block); }

  std::byte* reserve(std::size_t nbytes) override {
    CUdeviceptr address = 0;
    TRY(cuMemAddressReserve, &address, nbytes, 0, 0, 0);
    return reinterpret_cast<std::byte*>(address);
  }
  void give_back(std::byte* address, std::size_t nbytes) noexcept override {
    cuMemAddressFree_(number(address), nbytes);
  }
  void map(std::byte* address, std::size_t nbytes, Block block) override {
    TRY(cuMemMap, number(address), nbytes, 0, block, 0);
  }
  void unmap(std::byte* address, std::size_t nbytes) noexcept override {
    cuMemUnmap_(number(address), nbytes);
  }
  void allow(int device, std::byte* address, std::size_t nbytes) override {
    CUmemAccessDesc access{};
    access.location = on(device);
    access.flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
    TRY(cuMemSetAccess, number(address), nbytes, &access, 1);
  }

  void enter(int device) override {
    CUcontext context = nullptr;
    TRY(cuDevicePrimaryCtxRetain, &context, at(device));
  }
  void leave(int device) noexcept override { cuDevicePrimaryCtxRelease_(device); }
  void wait_idle(int device) noexcept override {
    CUcontext context = nullptr;  // the calling thread may have none, or another one
    if (cuDevicePrimaryCtxRetain_(&context, device) != CUDA_SUCCESS) {
      return;
    }
    if (cuCtxPushCurrent_(context) == CUDA_SUCCESS) {
      cuCtxSynchronize_();
      cuCtxPopCurrent_(&context);
    }
    cuDevicePrimaryCtxRelease_(device);
  }

 private:
  [[nodiscard]] void* find(const char* symbol) const {
    void* const found = dlsym(library_, symbol);
    if (found == nullptr) {
      fail(std::string("the NVIDIA driver has no ") + symbol + ": it is too old to pass memory, update it");
    }
    return found;
  }
  [[nodiscard]] CUdevice at(int device) const {
    CUdevice found = 0;
    TRY(cuDeviceGet, &found, device);
    return found;
  }
  void check(CUresult status, const char* call) const {
    if (status != CUDA_SUCCESS) {
      const char* name = nullptr;
      const char* text = nullptr;
      cuGetErrorName_(status, &name);
      cuGetErrorString_(status, &text);
      throw CudaError(fault_of(status), std::string(call) + ": " +
                                            (name == nullptr ? "unknown error" : name) + ": " +
                                            (text == nullptr ? std::to_string(status) : text));
    }
  }

  void* const library_ = open_library();
  HPRESIL_SYMBOL(cuInit);
  HPRESIL_SYMBOL(cuGetErrorName);
  HPRESIL_SYMBOL(cuGetErrorString);
  HPRESIL_SYMBOL(cuDeviceGet);
  HPRESIL_SYMBOL(cuDeviceGetAttribute);
  HPRESIL_SYMBOL(cuDevicePrimaryCtxRetain);
  HPRESIL_SYMBOL(cuDevicePrimaryCtxRelease);
  HPRESIL_SYMBOL(cuCtxPushCurrent);
  HPRESIL_SYMBOL(cuCtxPopCurrent);
  HPRESIL_SYMBOL(cuCtxSynchronize);
  HPRESIL_SYMBOL(cuMemGetAllocationGranularity);
  HPRESIL_SYMBOL(cuMemCreate);
  HPRESIL_SYMBOL(cuMemRelease);
  HPRESIL_SYMBOL(cuMemExportToShareableHandle);
  HPRESIL_SYMBOL(cuMemImportFromShareableHandle);
  HPRESIL_SYMBOL(cuMemAddressReserve);
  HPRESIL_SYMBOL(cuMemAddressFree);
  HPRESIL_SYMBOL(cuMemMap);
  HPRESIL_SYMBOL(cuMemUnmap);
  HPRESIL_SYMBOL(cuMemSetAccess);
};

}  // namespace

DriverApi& cuda_driver() {
  static CudaDriver driver;
  return driver;
}

}  // namespace hpresil
