#include "communicator/communicator.h"

#include <atomic>
#include <exception>
#include <thread>

#include "base/error.h"

namespace hpresil {

std::string Communicator::text() const {
  return "communicator " + place_.name + " of generation " + std::to_string(place_.generation) + ", rank " +
         std::to_string(place_.rank) + " of " + std::to_string(place_.ranks);
}

void Communicator::adopt(NcclComm* handle) {
  const std::lock_guard lock(calls_);
  expects(handle_ == nullptr && handle != nullptr, "a communicator gets one handle, once");
  handle_ = handle;
}

NcclComm* Communicator::open_handle() const {
  const std::string why = reason();
  if (!why.empty()) {
    fail(text() + " was given up: " + why);
  }
  if (handle_ == nullptr) {
    fail(text() + " is not open");
  }
  return handle_;
}

void Communicator::use(const std::string& what, const std::function<NcclResult(NcclComm*)>& call) {
  const std::lock_guard lock(calls_);
  NcclComm* handle = open_handle();
  check_nccl(*api_, call(handle), text() + ": " + what, handle);
}

NcclResult Communicator::look() {
  const std::lock_guard lock(calls_);
  NcclComm* handle = open_handle();
  NcclResult state = kNcclSuccess;
  check_nccl(*api_, api_->get_async_error(handle, &state), text() + ": looking at its state", handle);
  return state;
}

void Communicator::wait(const Deadline& deadline) {
  NcclResult state = kNcclInProgress;
  if (!look_until(deadline, [&] { return (state = look()) != kNcclInProgress; })) {
    fail(text() + ": " + deadline.text());
  }
  if (state != kNcclSuccess) {
    const std::lock_guard lock(calls_);
    check_nccl(*api_, state, text() + ": " + deadline.what() + " failed", open_handle());
  }
}

std::string Communicator::reason() const {
  const std::lock_guard lock(reasons_);
  return reason_;
}

bool Communicator::abort(const std::string& reason, double seconds) {
  {
    const std::lock_guard lock(reasons_);
    if (reason_.empty()) {
      reason_ = reason.empty() ? "no reason was given" : reason;
    }
  }
  const Deadline deadline(seconds, "abort");
  NcclComm* handle = take(deadline);
  return handle == nullptr ? !deadline.expired() : run_apart(handle, api_->abort, deadline);
}

bool Communicator::close(double seconds) {
  const Deadline deadline(seconds, "close");
  try {
    use("finalize", api_->finalize);
    wait(deadline);
  } catch (const NativeError& error) {
    abort(error.what(), seconds);
    return false;
  }
  {
    const std::lock_guard lock(reasons_);
    reason_ = reason_.empty() ? "it was closed" : reason_;
  }
  NcclComm* handle = take(deadline);
  return handle != nullptr && run_apart(handle, api_->destroy, deadline);
}

NcclComm* Communicator::take(const Deadline& deadline) {
  // A call that hangs although none should would keep the lock; then its thread is left behind with it.
  if (!look_until(deadline, [&] { return calls_.try_lock(); })) {
    return nullptr;
  }
  NcclComm* handle = handle_;
  handle_ = nullptr;
  calls_.unlock();
  return handle;
}

bool Communicator::run_apart(NcclComm* handle, const std::function<NcclResult(NcclComm*)>& call,
                             const Deadline& deadline) {
  const auto ended = std::make_shared<std::atomic<bool>>(false);
  std::thread([ended, handle, call, api = api_] {
    static_cast<void>(call(handle));  // nobody is left who could do anything about its failure
    ended->store(true);
  }).detach();
  return look_until(deadline, [&] { return ended->load(); });
}

}  // namespace hpresil
