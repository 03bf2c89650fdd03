// Runs collectives and transfers on a communicator: what pre-warming and device transfer both are.
//
// Operations between two `group_start`s of NCCL go out together: that is how several sends and receives
// between the same ranks cannot wait for each other, and how broadcasts with different roots run at once.
// Stream rule: everything is enqueued in `stream`, of the device the communicator was made on, which is the
// calling thread's current one.
#pragma once

#include <cstddef>
#include <vector>

#include "communicator/communicator.h"
#include "communicator/device_api.h"

namespace hpresil {

enum class Kind { all_reduce, broadcast, reduce, all_gather, reduce_scatter, send, receive };

struct Operation {
  Kind kind;
  const void* from;  // null where nothing is read
  void* to;          // null where nothing is written
  std::size_t
      bytes;  // of one rank's share: for all_gather what each contributes, for reduce_scatter what each gets
  int peer;   // root, or the other rank; -1 where there is none
};

using OperationGroup = std::vector<Operation>;

// Enqueues group after group; returns once NCCL has taken all of them, the device may still be busy.
// Reductions add float32 (bytes a multiple of 4), everything else moves bytes. Throws: given up, an error of
// NCCL, or the deadline.
void enqueue(Communicator& communicator, const std::vector<OperationGroup>& groups, CudaStream stream,
             const Deadline& deadline);

// `enqueue`, then until the device is done with them. Looks at the communicator meanwhile, so a peer that is
// lost ends it with NCCL's error; what was written then is undefined.
void run(Communicator& communicator, DeviceApi& devices, const std::vector<OperationGroup>& groups,
         CudaStream stream, const Deadline& deadline);

}  // namespace hpresil
