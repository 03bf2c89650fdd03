// The CUDA driver's calls for memory that another process can map, behind one interface.
//
// A *block* of physical memory, a range of addresses and the mapping of one at the other are made one by one
// here (cudaMalloc does all three), and a block can be passed as a file descriptor. Three implementations:
// `cuda_driver()`, with every symbol looked up at run time; `host_driver()`, the twin over memory files, so
// that everything around it runs for real on any machine; tests/cpp/device/fake_driver.h, which is scripted.
//
// Errors: whatever is not noexcept throws NativeError, and CudaError (cuda_api.h) if it was CUDA's. What
// ends or frees something is noexcept and drops errors: it may run after the context is gone.
// Threads: every call from any thread.
// Devices: CUDA's numbers in this process; kHostDevice and nothing else for the twin.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/cuda_api.h"
#include "memory/memfd.h"

namespace hpresil {

constexpr int kHostDevice = -1;

class DriverApi {
 public:
  using Block = std::uint64_t;  // one reference to a block; the memory is there as long as anybody has one

  DriverApi() = default;
  DriverApi(const DriverApi&) = delete;
  DriverApi& operator=(const DriverApi&) = delete;
  virtual ~DriverApi() = default;

  // Throws CudaFault::refused where memory cannot be passed as a descriptor.
  virtual void require_passing(int device) = 0;
  virtual std::size_t granularity(int device) = 0;  // every size below is a multiple of it

  // Needs no context. The descriptor is a reference of its own, as is what another process imports.
  virtual Block create(int device, std::size_t nbytes) = 0;
  virtual Fd export_block(Block block) = 0;
  virtual Block import_block(int fd) = 0;  // `fd` stays the caller's
  virtual void release(Block block) noexcept = 0;

  virtual std::byte* reserve(std::size_t nbytes) = 0;
  virtual void give_back(std::byte* address, std::size_t nbytes) noexcept = 0;
  virtual void map(std::byte* address, std::size_t nbytes, Block block) = 0;  // a reference of its own
  virtual void unmap(std::byte* address, std::size_t nbytes) noexcept = 0;
  virtual void allow(int device, std::byte* address, std::size_t nbytes) = 0;  // to read and to write

  // Keeps the device's primary context, which torch uses too, from being destroyed.
  virtual void enter(int device) = 0;
  virtual void leave(int device) noexcept = 0;
  // Until everything queued in that context is done: without a deadline, as cudaFree.
  virtual void wait_idle(int device) noexcept = 0;
};

// Opens the driver at the first call. Throws NativeError: no driver or no device here, a driver without
// these calls, or a build without CUDA.
DriverApi& cuda_driver();

DriverApi& host_driver();

}  // namespace hpresil
