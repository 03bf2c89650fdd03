// Where NCCL's non-blocking calls read their arguments and write their result.
//
// NCCL gives such a call a thread of its own, which may still write the new handle after the caller's
// deadline has passed, and nothing says when it is done. So what it may touch is never freed: about 200 bytes
// a call, and there are a few calls a generation.
#pragma once

#include <vector>

#include "communicator/nccl_types.h"

namespace hpresil {

struct CallMemory {
  NcclComm* made = nullptr;
  NcclConfig config;
  std::vector<NcclUniqueId> ids;
  std::vector<int> excluded;
};

// From any thread.
CallMemory& new_call_memory();

}  // namespace hpresil
