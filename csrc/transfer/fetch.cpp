#include "transfer/fetch.h"

#include <sys/eventfd.h>

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "transfer/stream.h"
#include "transfer/worker.h"

namespace hpresil::transfer {
namespace {

std::size_t slots_of(const std::vector<Source>& sources, const FetchSettings& settings) {
  expects(!sources.empty(), "a fetch needs a source");
  expects(settings.streams >= 1 && settings.streams <= 64, "1 to 64 streams a source");
  expects(settings.at_once >= 1 && settings.window >= 1 && settings.copy_threads >= 1,
          "sources at once, requests on their way and copying threads are at least 1");
  expects(settings.connect_ns > 0 && settings.stall_ns > 0 && settings.deadline_ns > 0,
          "a fetch's times are above 0");
  return std::min(settings.at_once, sources.size());
}

}  // namespace

FrameFetch::FrameFetch(std::shared_ptr<Frame> frame, std::vector<Source> sources,
                       const FetchSettings& settings, const std::vector<std::uint8_t>& here)
    : frame_(std::move(frame)),
      sources_(std::move(sources)),
      settings_(settings),
      begun_ns_(monotonic_ns()),
      ended_fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      chunks_(frame_->grid(), here),
      plan_(sources_.size(), slots_of(sources_, settings)),
      reports_(sources_.size()),
      ranks_(sources_.size()) {
  expects(ended_fd_.get() >= 0, "no descriptor is left for a fetch");
  for (std::size_t i = 0; i < here.size(); ++i) {
    if (here[i] != 0) {
      frame_->arrived(i, nullptr);
    }
  }
  thread_ = start_thread("hpresil-fetch", [this] { run(); });
}

FrameFetch::~FrameFetch() {
  cancel();
  thread_.join();
}

void FrameFetch::cancel() {
  const std::lock_guard lock(lock_);
  cancelled_ = true;
  changed_.notify_all();
}

bool FrameFetch::wait(std::int64_t timeout_ns) {
  std::unique_lock lock(lock_);
  return changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns), [&] { return state_ != "running"; });
}

void FrameFetch::run() {
  std::vector<std::thread> workers;
  const std::size_t wanted = slots_of(sources_, settings_) * settings_.streams;
  try {
    for (std::size_t i = 0; i < wanted; ++i) {
      {
        const std::lock_guard lock(lock_);
        ++working_;
      }
      workers.push_back(start_thread("hpresil-stream", [this, i] { work(static_cast<int>(i)); }));
    }
  } catch (const std::exception&) {
    const std::lock_guard lock(lock_);
    --working_;  // fewer threads do the same work; with none the fetch has failed
  }
  finish(workers);
  copied_from_.reset();
}

void FrameFetch::work(int number) {
  FetchWorker(*this, number).run();
  const std::lock_guard lock(lock_);
  --working_;
  changed_.notify_all();
}

void FrameFetch::finish(std::vector<std::thread>& workers) {
  std::string state;
  {
    std::unique_lock lock(lock_);
    const auto left = std::chrono::nanoseconds(begun_ns_ + settings_.deadline_ns - monotonic_ns());
    changed_.wait_for(lock, left, [&] { return cancelled_ || working_ == 0 || chunks_.complete(); });
    state = chunks_.complete() ? "done" : cancelled_ ? "cancelled" : working_ == 0 ? "failed" : "deadline";
    stopping_ = true;
    for (const Connection* connection : open_) {
      connection->shut();
    }
    changed_.notify_all();
  }
  for (std::thread& worker : workers) {
    worker.join();
  }
  frame_->give_up();  // of what is not here; what is stays
  const std::lock_guard lock(lock_);
  // A worker may have brought the last chunk after the state was looked at.
  state_ = chunks_.complete() ? "done" : state;
  ended_ns_ = monotonic_ns();
  eventfd_write(ended_fd_.get(), 1);
  changed_.notify_all();
}

std::string FrameFetch::state() const {
  const std::lock_guard lock(lock_);
  return state_;
}

std::vector<SourceReport> FrameFetch::reports() const {
  const std::lock_guard lock(lock_);
  return reports_;
}

std::vector<std::uint8_t> FrameFetch::here() const {
  const std::lock_guard lock(lock_);
  return chunks_.which();
}

std::int64_t FrameFetch::elapsed_ns() const {
  const std::lock_guard lock(lock_);
  return (ended_ns_ == 0 ? monotonic_ns() : ended_ns_) - begun_ns_;
}

std::uint64_t ask_size(const JobKey& key, Identity identity, const Source& source, std::int64_t timeout_ns,
                       std::uint32_t appear_ms) {
  const Hello hello = {.generation = identity.generation,
                       .version = identity.version,
                       .chunk_bytes = kLeastChunk,
                       .wait_ms = appear_ms,
                       .purpose = Purpose::size,
                       .nonce = {}};
  expects(!source.unix_path.empty() || !source.routes.empty(), "a source has a route, or a Unix socket");
  Connection connection = source.unix_path.empty()
                              ? Connection::to(source.routes.front(), timeout_ns, nullptr)
                              : Connection::to(source.unix_path, timeout_ns);
  const Accept accept = greet(connection, key, hello, timeout_ns).accept;
  if (accept.verdict != Verdict::welcome) {
    throw Broken("not here", words(accept.verdict));
  }
  return accept.frame_bytes;
}

}  // namespace hpresil::transfer
