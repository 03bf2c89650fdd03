#include "communicator/change.h"

#include <algorithm>

#include "base/error.h"
#include "communicator/call_memory.h"

namespace hpresil {
namespace {

constexpr double kAbortSeconds = 1.0;

using Make = std::function<NcclResult(NcclComm* parent, CallMemory&)>;

std::shared_ptr<Communicator> wait_for(std::shared_ptr<Communicator> made, const Deadline& deadline) {
  try {
    made->wait(deadline);
  } catch (const NativeError& error) {
    made->abort(error.what(), kAbortSeconds);
    throw;
  }
  return made;
}

// The new handle may be there only when the parent is done with the call.
std::shared_ptr<Communicator> make_from(Communicator& parent, const Place& place, const Deadline& deadline,
                                        CallMemory& memory, const Make& make) {
  parent.use(deadline.what(), [&](NcclComm* comm) { return make(comm, memory); });
  parent.wait(deadline);
  if (memory.made == nullptr) {
    return nullptr;
  }
  auto made = std::make_shared<Communicator>(parent.shared_api(), place);
  made->adopt(memory.made);
  return wait_for(std::move(made), deadline);
}

}  // namespace

void revoke(Communicator& communicator, const Deadline& deadline) {
  const NcclApi& api = communicator.api();
  require_feature(api, "revoke");
  communicator.use("revoke", [&](NcclComm* comm) { return api.revoke(comm, kRevokeDefault); });
  communicator.wait(deadline);
}

std::shared_ptr<Communicator> shrink(Communicator& communicator, std::vector<int> excluded, long generation,
                                     const Deadline& deadline) {
  const NcclApi& api = communicator.api();
  require_feature(api, "shrink");
  const Place& old = communicator.place();
  std::sort(excluded.begin(), excluded.end());
  for (std::size_t i = 0; i < excluded.size(); ++i) {
    const int rank = excluded[i];
    expects(rank >= 0 && rank < old.ranks && rank != old.rank,
            "a rank excludes others of its communicator, not itself");
    expects(i == 0 || rank != excluded[i - 1], "a rank is excluded once");
  }
  const auto before = std::lower_bound(excluded.begin(), excluded.end(), old.rank) - excluded.begin();
  const int count = static_cast<int>(excluded.size());
  const Place place{old.name, generation, old.rank - static_cast<int>(before), old.ranks - count};
  CallMemory& memory = new_call_memory();
  memory.excluded = std::move(excluded);
  return make_from(communicator, place, deadline, memory, [&](NcclComm* comm, CallMemory& m) {
    return api.shrink(comm, m.excluded.data(), count, &m.made, &m.config, kShrinkAbort);
  });
}

NcclUniqueId grow_id(Communicator& communicator) {
  const NcclApi& api = communicator.api();
  require_feature(api, "grow");
  NcclUniqueId id{};
  communicator.use("an id to grow with", [&](NcclComm* comm) { return api.grow_id(comm, &id); });
  return id;
}

std::shared_ptr<Communicator> grow(Communicator& communicator, int ranks, const NcclUniqueId* id,
                                   long generation, const Deadline& deadline) {
  const NcclApi& api = communicator.api();
  require_feature(api, "grow");
  const Place& old = communicator.place();
  expects(ranks > old.ranks, "a communicator grows to more ranks than it has");
  const Place place{old.name, generation, old.rank, ranks};
  CallMemory& memory = new_call_memory();
  if (id != nullptr) {
    memory.ids.push_back(*id);
  }
  return make_from(communicator, place, deadline, memory, [&](NcclComm* comm, CallMemory& m) {
    return api.grow(comm, ranks, m.ids.empty() ? nullptr : m.ids.data(), -1, &m.made, &m.config);
  });
}

std::shared_ptr<Communicator> join(const std::shared_ptr<const NcclApi>& api, const Place& place,
                                   const NcclUniqueId& id, const Deadline& deadline) {
  require_feature(*api, "grow");
  CallMemory& memory = new_call_memory();
  memory.ids.push_back(id);
  auto made = std::make_shared<Communicator>(api, place);
  const NcclResult begun =
      api->grow(nullptr, place.ranks, memory.ids.data(), place.rank, &memory.made, &memory.config);
  check_nccl(*api, begun, made->text() + ": join");
  made->adopt(memory.made);
  return wait_for(std::move(made), deadline);
}

std::shared_ptr<Communicator> split(Communicator& communicator, int colour,
                                    const std::vector<std::string>& domains, const Place& place,
                                    const Deadline& deadline) {
  const NcclApi& api = communicator.api();
  const Place& old = communicator.place();
  expects(domains.size() == static_cast<std::size_t>(old.ranks), "one failure domain for every rank");
  const bool one =
      std::all_of(domains.begin(), domains.end(), [&](const auto& d) { return d == domains.front(); });
  CallMemory& memory = new_call_memory();
  memory.config.split_share = one ? 1 : 0;
  return make_from(communicator, place, deadline, memory, [&](NcclComm* comm, CallMemory& m) {
    return api.split(comm, colour, old.rank, &m.made, &m.config);
  });
}

void suspend(Communicator& communicator, const Deadline& deadline) {
  const NcclApi& api = communicator.api();
  require_feature(api, "suspend");
  communicator.use("suspend", [&](NcclComm* comm) { return api.suspend(comm, kSuspendMemory); });
  communicator.wait(deadline);
}

void resume(Communicator& communicator, const Deadline& deadline) {
  const NcclApi& api = communicator.api();
  require_feature(api, "suspend");
  communicator.use("resume", [&](NcclComm* comm) { return api.resume(comm); });
  communicator.wait(deadline);
}

}  // namespace hpresil
