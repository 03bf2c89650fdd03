// NVIDIA devices, from a module that loads on any machine.
//
// The CUDA runtime is linked statically and finds the driver at run time. Without nvcc at build time
// (absent.cpp) the same functions exist: there are no devices, and the others throw "not built with
// CUDA".
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace hpresil {

struct Device {
  int index;
  std::string name;
  int major;  // compute capability
  int minor;
  std::size_t memory_bytes;
  int multiprocessors;
  std::string uuid;     // as nvidia-smi prints it
  int driver_version;   // 13000 means 13.0; the newest CUDA version the driver supports
  int runtime_version;  // of the runtime in this module
};

struct SelfTest {
  bool passed;
  double copy_back_gbytes_per_s;  // device to host, pinned
  std::string problem;            // empty when passed
};

// "" when built without CUDA, else the toolkit's version.
std::string cuda_toolkit();

// Compute capabilities compiled in, "" without CUDA.
std::string cuda_architectures();

// Creates no context. Empty without a driver or a device; throws for any other failure.
std::vector<Device> list_devices();

// Runs a kernel on the device, reads its result back through registered memory and compares it.
// Creates a context, so it belongs into a process of its own. Restores the current device.
SelfTest test_device(int index);

// Pins [address, address + nbytes) for DMA by any context of this process.
void register_host_memory(void* address, std::size_t nbytes);
void unregister_host_memory(void* address);

}  // namespace hpresil
