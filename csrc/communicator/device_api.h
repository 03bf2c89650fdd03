// The few things communicators ask of a device, so that everything around them is tested without one.
//
// Three of them: CUDA (`cuda_device_api`, through the calls of device/cuda_api.h), the host, where a stream
// is nothing and everything is done when a call returns (`host_device_api`, for tensors in host memory), and
// a script in a test. Thread safety: all from any thread. `set_device` and what follows it belong to the
// calling thread.
#pragma once

#include <cstdint>
#include <memory>

#include "communicator/nccl_types.h"

namespace hpresil {

using DeviceEvent = void*;

class DeviceApi {
 public:
  DeviceApi() = default;
  virtual ~DeviceApi() = default;
  DeviceApi(const DeviceApi&) = delete;
  DeviceApi& operator=(const DeviceApi&) = delete;

  virtual void set_device(int device) = 0;

  // An event on the calling thread's device, recorded in `stream`; the caller drops it.
  virtual DeviceEvent record(CudaStream stream) = 0;
  virtual bool done(DeviceEvent event) = 0;
  virtual void drop(DeviceEvent event) noexcept = 0;

  // In `stream`: *flag = 1, and ballots[0 .. count) = 0.
  virtual void close_gate(float* flag, std::uint64_t* ballots, int count, CudaStream stream) = 0;

  // In `stream`: *flag = 0 if all ballots are `token`, else 1.
  virtual void open_gate(float* flag, const std::uint64_t* ballots, int count, std::uint64_t token,
                         CudaStream stream) = 0;
};

std::shared_ptr<DeviceApi> host_device_api();

class CudaApi;

// The device behind `cuda`, which must outlive it; without one, the CUDA runtime's: throws if hpresil was
// built without CUDA. Creates no context.
std::shared_ptr<DeviceApi> cuda_device_api(CudaApi& cuda);
std::shared_ptr<DeviceApi> cuda_device_api();

}  // namespace hpresil
