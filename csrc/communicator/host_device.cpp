#include <algorithm>

#include "base/error.h"
#include "communicator/device_api.h"

namespace hpresil {
namespace {

class HostDevice final : public DeviceApi {
 public:
  void set_device(int device) override { expects(device < 0, "host memory belongs to no device"); }
  DeviceEvent record(CudaStream /*stream*/) override { return nullptr; }
  bool done(DeviceEvent /*event*/) override { return true; }
  void drop(DeviceEvent /*event*/) noexcept override {}

  void close_gate(float* flag, std::uint64_t* ballots, int count, CudaStream /*stream*/) override {
    *flag = 1.0F;
    std::fill_n(ballots, count, std::uint64_t{0});
  }

  void open_gate(float* flag, const std::uint64_t* ballots, int count, std::uint64_t token,
                 CudaStream /*stream*/) override {
    const bool all = std::all_of(ballots, ballots + count, [token](std::uint64_t b) { return b == token; });
    *flag = all ? 0.0F : 1.0F;
  }
};

}  // namespace

std::shared_ptr<DeviceApi> host_device_api() { return std::make_shared<HostDevice>(); }

}  // namespace hpresil
