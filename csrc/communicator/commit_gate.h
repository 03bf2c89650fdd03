// A flag in device memory that lets the optimizer step only if every rank has voted for it.
//
// The problem: on a device the optimizer is enqueued behind the vote's collective long before anybody knows
// its outcome, and a collective that is aborted ends like one that has succeeded. The design: the flag says
// "no" (1, as found_inf of a fused optimizer does) from before the vote. Each rank's ballot is a number that
// belongs to this step of this generation alone; the ballots are gathered into memory that was cleared
// before, and a kernel behind the gathering sets the flag to "yes" (0) only if all are there. Whatever an
// aborted collective leaves in that memory is not that number in every place, so the optimizer does nothing.
//
// Stream rule: close, the gathering into `ballots`, open and the optimizer go into one stream, in this order.
// Thread safety: one thread at a time.
#pragma once

#include <cstdint>
#include <memory>

#include "communicator/device_api.h"

namespace hpresil {

class CommitGate {
 public:
  // `flag`: one float. `ballots`: `ranks` of them. Both stay the caller's, and stay where they are.
  CommitGate(std::shared_ptr<DeviceApi> devices, float* flag, std::uint64_t* ballots, int ranks);

  // Says "no", and returns the ballot of this step; every rank of the group gets the same one, never 0.
  std::uint64_t close(std::uint64_t generation, std::uint64_t step, CudaStream stream);

  // Says "yes" if all ballots are there.
  void open(CudaStream stream);

 private:
  std::shared_ptr<DeviceApi> devices_;
  float* flag_;
  std::uint64_t* ballots_;
  int ranks_;
  std::uint64_t token_ = 0;  // 0: not closed
};

}  // namespace hpresil
