// One rank's end of an NCCL communicator that never blocks and can be given up at any moment.
//
// All are made with blocking=0: NCCL's calls return at once, and what they began is looked for with
// ncclCommGetAsyncError, until a deadline. Whoever gives it up first says why; every wait, in whatever
// thread, then ends with that reason.
//
// Invariants: a reason is set once and never changes. No call of NCCL is made with the handle after it was
// taken for an abort, a close or another use that ends it. The destructor makes no call: the CUDA context may
// be gone. Thread safety: `use`, `look`, `wait`, `reason` and `abort` from any thread. NCCL allows one call
// at a time on a communicator, so a lock lies around each; it is held for as long as a call that does not
// block.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "communicator/deadline.h"
#include "communicator/nccl_api.h"

namespace hpresil {

struct Place {
  std::string name;  // of the communicator, in messages
  long generation;
  int rank;
  int ranks;
};

class Communicator {
 public:
  Communicator(std::shared_ptr<const NcclApi> api, Place place)
      : api_(std::move(api)), place_(std::move(place)) {}
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  [[nodiscard]] const NcclApi& api() const { return *api_; }
  [[nodiscard]] const std::shared_ptr<const NcclApi>& shared_api() const { return api_; }
  [[nodiscard]] const Place& place() const { return place_; }
  [[nodiscard]] std::string text() const;  // "communicator dp of generation 3, rank 1 of 4"

  // The handle that NCCL filled in; once, before the communicator is shown to other threads.
  void adopt(NcclComm* handle);

  // Calls `call` with the handle. Throws what `check_nccl` throws, and if the communicator was given up.
  void use(const std::string& what, const std::function<NcclResult(NcclComm*)>& call);

  // kNcclInProgress while something is going on, kNcclSuccess, or an error. Throws if it was given up.
  NcclResult look();

  // Until nothing is in progress. Throws with the reason: an error of NCCL, given up, or the deadline. The
  // communicator is as it was: the caller decides whether to abort.
  void wait(const Deadline& deadline);

  // "" while it was not given up.
  [[nodiscard]] std::string reason() const;

  // Gives it up: every call on it, also one that waits, ends with the first reason given. ncclCommAbort runs
  // in a thread of its own, since it waits for the device. False if that has not ended within `seconds`; it
  // is then left behind.
  bool abort(const std::string& reason, double seconds);

  // Ends one that is not needed any more: what was begun is finished first, by all ranks. Aborts if that
  // fails. False if it had to be aborted, or left behind.
  bool close(double seconds);

 private:
  [[nodiscard]] NcclComm* open_handle() const;  // throws if it was given up; with the lock held
  NcclComm* take(const Deadline& deadline);     // null if there is none, or the lock was not free in time
  bool run_apart(NcclComm* handle, const std::function<NcclResult(NcclComm*)>& call,
                 const Deadline& deadline);

  const std::shared_ptr<const NcclApi> api_;
  const Place place_;
  mutable std::mutex calls_;  // guards handle_
  NcclComm* handle_ = nullptr;
  mutable std::mutex reasons_;
  std::string reason_;
};

}  // namespace hpresil
