// Many communicators at once: inside of one group NCCL gives every initialisation a thread of its own.
#pragma once

#include <memory>
#include <vector>

#include "communicator/communicator.h"
#include "communicator/device_api.h"

namespace hpresil {

struct InitSpec {
  Place place;
  std::vector<NcclUniqueId> ids;  // one a root, the same list for every rank; used by this communicator alone
};

// Begins all of them on `device` (-1: the calling thread's current one) and returns at once. They are
// pending: `finish_init` or `abort`. Several ids need the feature scalable_init; without it the first alone
// is the root. Throws if NCCL refuses to begin one; the others are then aborted.
std::vector<std::shared_ptr<Communicator>> begin_init(const std::shared_ptr<const NcclApi>& api,
                                                      DeviceApi& devices, int device,
                                                      std::vector<InitSpec> specs);

// Until all are ready. If one fails, or is given up, or `deadline` passes, *all* are aborted, with a reason
// that names the first that failed, and that reason is thrown: half of a generation's communicators are of no
// use.
void finish_init(const std::vector<std::shared_ptr<Communicator>>& pending, const Deadline& deadline);

}  // namespace hpresil
