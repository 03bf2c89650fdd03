#include "communicator/bulk_init.h"

#include "base/error.h"
#include "communicator/call_memory.h"

namespace hpresil {
namespace {

constexpr double kAbortSeconds = 1.0;  // for each; what takes longer is left behind

using Communicators = std::vector<std::shared_ptr<Communicator>>;

void abort_all(const Communicators& all, const std::string& why) {
  for (const auto& communicator : all) {
    communicator->abort(why, kAbortSeconds);
  }
}

NcclResult begin_one(const NcclApi& api, const Place& place, CallMemory& memory) {
  if (memory.ids.size() > 1 && has_feature(api, "scalable_init")) {
    return api.init_rank_scalable(&memory.made, place.ranks, place.rank, static_cast<int>(memory.ids.size()),
                                  memory.ids.data(), &memory.config);
  }
  return api.init_rank_config(&memory.made, place.ranks, memory.ids.front(), place.rank, &memory.config);
}

void check_spec(const InitSpec& spec) {
  const Place& place = spec.place;
  expects(!spec.ids.empty(), "a communicator needs at least one id");
  expects(place.ranks > 0 && place.rank >= 0 && place.rank < place.ranks, "no rank of this communicator");
  expects(spec.ids.size() <= static_cast<std::size_t>(place.ranks), "more roots than ranks");
}

}  // namespace

Communicators begin_init(const std::shared_ptr<const NcclApi>& api, DeviceApi& devices, int device,
                         std::vector<InitSpec> specs) {
  for (const InitSpec& spec : specs) {
    check_spec(spec);
  }
  if (device >= 0) {
    devices.set_device(device);
  }
  check_nccl(*api, api->group_start(), "ncclGroupStart");
  Communicators begun;
  std::string failed;
  for (InitSpec& spec : specs) {
    CallMemory& memory = new_call_memory();
    memory.ids = std::move(spec.ids);
    auto communicator = std::make_shared<Communicator>(api, spec.place);
    const NcclResult result = begin_one(*api, spec.place, memory);
    if (memory.made != nullptr) {
      communicator->adopt(memory.made);
      begun.push_back(communicator);
    }
    if (memory.made == nullptr || (result != kNcclSuccess && result != kNcclInProgress)) {
      failed = communicator->text() + ": init did not begin: " + api->error_string(result);
      break;
    }
  }
  const NcclResult ended = api->group_end();  // also after a failure: every start needs its end
  if (failed.empty() && ended != kNcclSuccess && ended != kNcclInProgress) {
    failed = std::string("ncclGroupEnd: ") + api->error_string(ended);
  }
  if (!failed.empty()) {
    abort_all(begun, failed);
    fail(failed);
  }
  return begun;
}

void finish_init(const Communicators& pending, const Deadline& deadline) {
  for (const auto& communicator : pending) {
    try {
      communicator->wait(deadline);
    } catch (const NativeError& error) {
      const std::string why = error.what();
      abort_all(pending, why);
      throw;
    }
  }
}

}  // namespace hpresil
