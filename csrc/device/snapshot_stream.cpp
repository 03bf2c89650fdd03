#include "device/snapshot_stream.h"

#include <algorithm>

namespace hpresil {
namespace {

constexpr int kCaptureTries = 2;

}  // namespace

// Runs on the device of this stream, and keeps the first error after which nothing works any more.
template <typename Work>
auto SnapshotStream::guarded(Work work) {
  if (!lost_.empty()) {
    throw CudaError(CudaFault::context_lost,
                    "the CUDA context of this process is lost; end the process, its state has to come from a "
                    "replica. The first error: " +
                        lost_);
  }
  try {
    const CurrentDevice current(api_, device_);
    return work();
  } catch (const CudaError& error) {
    if (error.fault() == CudaFault::context_lost) {
      lost_ = error.what();
    }
    throw;
  }
}

SnapshotStream::SnapshotStream(CudaApi& api, int device) : api_(api), device_(device) {
  guarded([&] {
    stream_ = OwnedStream(api_, api_.create_stream());
    ready_ = OwnedEvent(api_, api_.create_event());
    done_ = OwnedEvent(api_, api_.create_event());
  });
}

void SnapshotStream::expect_still() const {
  expects(state_ != State::copying && state_ != State::failing,
          "a snapshot is still being copied: wait for it first");
}

void SnapshotStream::note(const std::string& text) {
  if (std::find(notes_.begin(), notes_.end(), text) == notes_.end()) {
    notes_.push_back(text);
  }
}

// Nothing, and a note, when the system refuses.
OwnedRegistration SnapshotStream::pinned(void* address, std::size_t nbytes) {
  try {
    api_.register_host(address, nbytes);
    return {api_, address};
  } catch (const CudaError& error) {
    if (error.fault() == CudaFault::context_lost) {
      throw;
    }
    note(std::string("host memory is not pinned, copies are slower and wait on the host: ") + error.what());
    return {};
  }
}

bool SnapshotStream::register_memory(std::byte* address, std::size_t nbytes) {
  expect_still();
  return guarded([&] {
    OwnedRegistration registration = pinned(address, nbytes);
    if (!registration) {
      return false;
    }
    ranges_.push_back({address, nbytes, std::move(registration)});
    items_.clear();  // what could not be captured before perhaps can now
    return true;
  });
}

void SnapshotStream::unregister_memory(std::byte* address) {
  expect_still();
  graph_.reset();
  items_.clear();
  const auto gone = std::remove_if(ranges_.begin(), ranges_.end(),
                                   [&](const Range& range) { return range.address == address; });
  expects(gone != ranges_.end(), "this memory was not registered");
  ranges_.erase(gone, ranges_.end());
}

bool SnapshotStream::registered(const CopyItem& item) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& range) {
    return item.to >= range.address && item.to + item.nbytes <= range.address + range.nbytes;
  });
}

void SnapshotStream::upload(OwnedMemory& memory, const void* from, std::size_t nbytes) {
  memory.reset();
  if (nbytes > 0) {
    memory = OwnedMemory(api_, api_.allocate(nbytes));
    api_.copy(memory.get(), from, nbytes, stream_.get());
  }
}

void SnapshotStream::make_plan(std::span<const CopyItem> items) {
  staging_.reset();
  plan_ = plan_snapshot(items, true);
  if (plan_.staging_bytes > 0) {
    try {
      staging_ = OwnedMemory(api_, api_.allocate(plan_.staging_bytes));
      api_.fill(staging_.get(), 0, plan_.staging_bytes, stream_.get());
    } catch (const CudaError& error) {
      if (error.fault() != CudaFault::out_of_memory) {
        throw;
      }
      note(std::string("no device memory to pack small tensors in, each is copied by itself: ") +
           error.what());
      plan_ = plan_snapshot(items, false);
    }
  }
  upload(chunks_, plan_.chunks.data(), plan_.chunks.size() * sizeof(GatherChunk));
  upload(blocks_, plan_.blocks.data(), plan_.blocks.size() * sizeof(HashBlock));
  const std::size_t hash_bytes = plan_.blocks.size() * sizeof(std::uint64_t);
  device_hashes_.reset();
  hashes_registration_.reset();
  hashes_ = allocate_pages(hash_bytes);
  if (hash_bytes > 0) {
    device_hashes_ = OwnedMemory(api_, api_.allocate(hash_bytes));
    hashes_registration_ = pinned(hashes_.get(), hash_bytes);
  }
}

void SnapshotStream::set_copies(std::span<const CopyItem> items) {
  expect_still();
  if (!items_.empty() && std::equal(items.begin(), items.end(), items_.begin(), items_.end())) {
    return;
  }
  graph_.reset();
  items_.clear();  // until all of the new list is there, there is none
  state_ = State::idle;
  guarded([&] {
    make_plan(items);
    const bool all =
        std::all_of(items.begin(), items.end(), [&](const auto& item) { return registered(item); });
    if (all && (hashes_registration_ || plan_.blocks.empty())) {
      capture();
    } else {
      note("some host memory is not registered: copies are submitted one by one");
    }
    items_.assign(items.begin(), items.end());
  });
}

void SnapshotStream::enqueue() {
  if (!plan_.chunks.empty()) {
    const void* list = chunks_.get();
    void* staging = staging_.get();
    void* arguments[] = {&list, &staging};
    api_.launch(DeviceKernel::gather, {static_cast<unsigned>(plan_.chunks.size()), kKernelThreads}, arguments,
                stream_.get());
  }
  for (const StagedRun& run : plan_.runs) {
    api_.copy(run.to, static_cast<const std::byte*>(staging_.get()) + run.offset, run.nbytes, stream_.get());
  }
  for (const CopyItem& item : plan_.direct) {
    api_.copy(item.to, item.from, item.nbytes, stream_.get());
  }
  if (!plan_.blocks.empty()) {
    const void* list = blocks_.get();
    void* hashes = device_hashes_.get();
    void* arguments[] = {&list, &hashes};
    api_.launch(DeviceKernel::hash_blocks, {static_cast<unsigned>(plan_.blocks.size()), kKernelThreads},
                arguments, stream_.get());
    api_.copy(hashes_.get(), hashes, plan_.blocks.size() * sizeof(std::uint64_t), stream_.get());
  }
}

bool SnapshotStream::try_capture(std::string& why) {
  bool capturing = false;
  try {
    api_.begin_capture(stream_.get());
    capturing = true;
    enqueue();
    capturing = false;  // also when this throws
    graph_ = OwnedGraph(api_, api_.end_capture(stream_.get()));
    ++captures_;
    return true;
  } catch (const CudaError& error) {
    if (error.fault() == CudaFault::context_lost) {
      throw;
    }
    why = error.what();
  }
  if (capturing) {
    try {
      OwnedGraph(api_, api_.end_capture(stream_.get()));
    } catch (const CudaError& error) {  // the capture was invalid, and is over now
      if (error.fault() == CudaFault::context_lost) {
        throw;
      }
    }
  }
  return false;
}

void SnapshotStream::capture() {
  std::string why;
  for (int i = 0; i < kCaptureTries; ++i) {
    if (try_capture(why)) {
      return;
    }
  }
  note("no graph could be captured, copies are submitted one by one: " + why);
}

void SnapshotStream::begin(CudaApi::Stream after) {
  expect_still();
  expects(!items_.empty(), "there is nothing to copy: call set_copies first");
  guarded([&] {
    state_ = State::failed;
    api_.record(ready_.get(), after);
    api_.wait_event(stream_.get(), ready_.get());
    try {
      if (graph_) {
        api_.launch_graph(graph_.get(), stream_.get());
      } else {
        enqueue();
      }
    } catch (const CudaError& error) {
      if (error.fault() != CudaFault::context_lost) {
        // Part of it may be queued; this tells when the device is through with that.
        api_.record(done_.get(), stream_.get());
        begun_ = true;
        state_ = State::failing;
      }
      throw;
    }
    state_ = State::failing;
    api_.record(done_.get(), stream_.get());
    begun_ = true;
    state_ = State::copying;
  });
}

void SnapshotStream::gate(CudaApi::Stream next) {
  guarded([&] {
    if (begun_) {
      api_.wait_event(next, done_.get());
    }
  });
}

bool SnapshotStream::wait(double timeout_s) {
  if (state_ != State::copying && state_ != State::failing) {
    return true;
  }
  const bool reached = guarded([&] {
    try {
      return wait_reached(api_, done_.get(), timeout_s);
    } catch (const CudaError&) {
      state_ = State::failing;  // and it may still be written: an error is no proof that the work has ended
      throw;
    }
  });
  if (reached) {
    state_ = state_ == State::copying ? State::complete : State::failed;
  }
  return reached;
}

bool SnapshotStream::finished() { return wait(0); }

std::span<const std::uint64_t> SnapshotStream::hashes() const {
  expects(complete(), "there are no hashes: the last snapshot is not complete");
  return {static_cast<const std::uint64_t*>(hashes_.get()), plan_.blocks.size()};
}

}  // namespace hpresil
