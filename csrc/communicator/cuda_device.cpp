// What communicators ask of a device, in CUDA's words.
#include <array>

#include "communicator/device_api.h"
#include "device/cuda_api.h"
#include "device/work_lists.h"

namespace hpresil {
namespace {

CudaApi::Stream stream_of(CudaStream stream) { return static_cast<CudaApi::Stream>(stream); }
CudaApi::Event event_of(DeviceEvent event) { return static_cast<CudaApi::Event>(event); }

class CudaDevice final : public DeviceApi {
 public:
  explicit CudaDevice(CudaApi& cuda) : cuda_(cuda) {}

  void set_device(int device) override { cuda_.set_device(device); }

  DeviceEvent record(CudaStream stream) override {
    const CudaApi::Event event = cuda_.create_event();
    try {
      cuda_.record(event, stream_of(stream));
    } catch (...) {
      cuda_.destroy_event(event);
      throw;
    }
    return event;
  }
  bool done(DeviceEvent event) override { return cuda_.reached(event_of(event)); }
  void drop(DeviceEvent event) noexcept override { cuda_.destroy_event(event_of(event)); }

  void close_gate(float* flag, std::uint64_t* ballots, int count, CudaStream stream) override {
    std::array<void*, 3> arguments = {&flag, &ballots, &count};
    cuda_.launch(DeviceKernel::close_gate, {1, kKernelThreads}, arguments.data(), stream_of(stream));
  }
  void open_gate(float* flag, const std::uint64_t* ballots, int count, std::uint64_t token,
                 CudaStream stream) override {
    std::array<void*, 4> arguments = {&flag, &ballots, &count, &token};
    cuda_.launch(DeviceKernel::open_gate, {1, kKernelThreads}, arguments.data(), stream_of(stream));
  }

 private:
  CudaApi& cuda_;
};

}  // namespace

std::shared_ptr<DeviceApi> cuda_device_api(CudaApi& cuda) { return std::make_shared<CudaDevice>(cuda); }

std::shared_ptr<DeviceApi> cuda_device_api() { return cuda_device_api(cuda_runtime()); }

}  // namespace hpresil
