// What is done to a communicator when its members change: the steps of the recovery ladder.
//
// Every step that needs a newer NCCL says so (`require_feature`). A new communicator comes back pending or
// ready as `wait` says; the old one stays the caller's to close or abort. No resources are shared with the
// old one unless `split` says so: sharing means one abort flag, and a fault in one would end the other.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "communicator/communicator.h"

namespace hpresil {

// Ends what is going on and leaves it without operations in flight, a parent for shrink and grow. 2.28.9.
void revoke(Communicator& communicator, const Deadline& deadline);

// Called by those who stay: a communicator without the ranks in `excluded`, the others closing up. Operations
// in flight are aborted first. `generation`: of the new one. 2.27. Throws when `deadline` passes; the new one
// is then aborted.
std::shared_ptr<Communicator> shrink(Communicator& communicator, std::vector<int> excluded, long generation,
                                     const Deadline& deadline);

// An id for `grow`, from the one member that is to be its root; used once, and before the next is asked
// for. 2.29.2.
NcclUniqueId grow_id(Communicator& communicator);

// Called by a member: `id` on the root, null elsewhere. Ranks stay as they are, newcomers come behind.
std::shared_ptr<Communicator> grow(Communicator& communicator, int ranks, const NcclUniqueId* id,
                                   long generation, const Deadline& deadline);

// Called by a newcomer.
std::shared_ptr<Communicator> join(const std::shared_ptr<const NcclApi>& api, const Place& place,
                                   const NcclUniqueId& id, const Deadline& deadline);

// A communicator of the ranks with the same colour, ordered by rank. `domains`: of every rank of the parent,
// what fails together; resources are shared only if all are in one. Null for a rank whose colour is -1.
std::shared_ptr<Communicator> split(Communicator& communicator, int colour,
                                    const std::vector<std::string>& domains, const Place& place,
                                    const Deadline& deadline);

// A stand-in that gives its device memory back and keeps its bootstrap, and the way back. 2.29.7.
void suspend(Communicator& communicator, const Deadline& deadline);
void resume(Communicator& communicator, const Deadline& deadline);

}  // namespace hpresil
