// Copies device memory into frames of host memory beside the training stream.
//
// The state does not change during forward and backward, so a copy runs then, on a stream of its own; only
// the next optimizer step waits for it (`gate`), on the device, and nothing waits on the host. The list of
// copies is captured once as a CUDA graph, one launch in place of hundreds, and again when an address
// changes. Every block of 1 MiB of each tensor is hashed on the device in passing (checksum/block_hash.h), so
// a reader can compare what arrived, and see which blocks changed, without touching the device.
//
// What does not work is done in a slower way where there is one, and `notes` says why: without the
// memory for packing, each tensor is copied by itself; where capture fails, or host memory could not be
// registered, copies are submitted one by one.
//
// Invariants: 1. nothing is changed while a copy is under way; 2. after CudaFault::context_lost every call
// throws, with the first error's text; 3. after an error in `begin`, `finished` still tells when the device
// writes no more, and `complete` stays false.
//
// Thread safety: one thread at a time. The CudaApi has to outlive it. Destroying it waits for a copy that is
// under way, at most a second; what a device that hangs may still write to is then never given back. Frames
// are the caller's, who has to keep them in that case.
#pragma once

#include <string>

#include "device/owned.h"
#include "device/snapshot_plan.h"

namespace hpresil {

class SnapshotStream {
 public:
  // Throws CudaError when the device has no stream or event to give.
  SnapshotStream(CudaApi& api, int device);
  SnapshotStream(const SnapshotStream&) = delete;
  SnapshotStream& operator=(const SnapshotStream&) = delete;
  ~SnapshotStream();

  // Pins host memory for the life of this object, or until `unregister_memory`. False, with a note, when the
  // system refuses.
  bool register_memory(std::byte* address, std::size_t nbytes);
  void unregister_memory(std::byte* address);

  // What every `begin` copies from now on. The same list again costs a comparison. Between small tensors that
  // lie next to each other in the frame, at most kMostGapBytes are overwritten with zeros.
  void set_copies(std::span<const CopyItem> items);

  // Copies once everything queued on `after` so far is done. Does not wait.
  void begin(CudaApi::Stream after);

  // Holds what is queued on `next` from here on until the copy that has begun is done. Does not wait.
  void gate(CudaApi::Stream next);

  // Whether the device writes no more. Throws what the copy failed with.
  bool finished();

  // The same within a time limit, in seconds.
  bool wait(double timeout_s);

  // Whether the frame holds everything: the last copy has begun without an error and is finished.
  [[nodiscard]] bool complete() const { return state_ == State::complete; }

  // The hashes of the last complete copy: for each item those of its blocks, one after the other.
  [[nodiscard]] std::span<const std::uint64_t> hashes() const;
  [[nodiscard]] std::span<const std::size_t> first_block() const { return plan_.first_block; }

  [[nodiscard]] std::uint64_t captures() const { return captures_; }
  [[nodiscard]] bool uses_graph() const { return static_cast<bool>(graph_); }
  [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }

 private:
  enum class State { idle, copying, failing, failed, complete };
  struct Range {
    std::byte* address;
    std::size_t nbytes;
    OwnedRegistration registration;
  };

  template <typename Work>
  auto guarded(Work work);
  void expect_still() const;
  void note(const std::string& text);
  OwnedRegistration pinned(void* address, std::size_t nbytes);
  bool may_be_written() noexcept;
  void abandon();
  [[nodiscard]] bool registered(const CopyItem& item) const;
  void make_plan(std::span<const CopyItem> items);
  void upload(OwnedMemory& memory, const void* from, std::size_t nbytes);
  void enqueue();
  void capture();
  bool try_capture(std::string& why);

  CudaApi& api_;
  int device_;
  OwnedStream stream_;
  OwnedEvent ready_;
  OwnedEvent done_;
  std::vector<Range> ranges_;
  std::vector<CopyItem> items_;
  SnapshotPlan plan_;
  OwnedMemory staging_;
  OwnedMemory chunks_;
  OwnedMemory blocks_;
  OwnedMemory device_hashes_;
  HostPages hashes_;
  OwnedRegistration hashes_registration_;
  OwnedGraph graph_;
  State state_ = State::idle;
  bool begun_ = false;
  std::uint64_t captures_ = 0;
  std::string lost_;
  std::vector<std::string> notes_;
};

}  // namespace hpresil
