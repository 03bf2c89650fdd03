#include "communicator/commit_gate.h"

#include "base/error.h"

namespace hpresil {
namespace {

// SplitMix64's finaliser (Steele, Lea, Flood 2014): neighbouring steps get numbers without likeness.
std::uint64_t mix(std::uint64_t x) {
  x = (x ^ (x >> 30U)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27U)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31U);
}

}  // namespace

CommitGate::CommitGate(std::shared_ptr<DeviceApi> devices, float* flag, std::uint64_t* ballots, int ranks)
    : devices_(std::move(devices)), flag_(flag), ballots_(ballots), ranks_(ranks) {
  expects(flag != nullptr && ballots != nullptr && ranks > 0,
          "a gate needs a flag and a ballot for every rank");
}

std::uint64_t CommitGate::close(std::uint64_t generation, std::uint64_t step, CudaStream stream) {
  const std::uint64_t mixed = mix(mix(generation + 0x9e3779b97f4a7c15U) + step + 1);
  token_ = mixed == 0 ? 1 : mixed;
  devices_->close_gate(flag_, ballots_, ranks_, stream);
  return token_;
}

void CommitGate::open(CudaStream stream) {
  expects(token_ != 0, "a gate is closed before it is opened");
  devices_->open_gate(flag_, ballots_, ranks_, token_, stream);
  token_ = 0;
}

}  // namespace hpresil
