// One filling of a frame, shared by all threads that copy: which parts there are, who takes which, and the
// end.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "snapshot/frame_writer.h"

namespace hpresil {

// One tensor that is to be copied: contiguous host memory, its place in the frame and in the table of
// checksums.
struct Tensor {
  const std::byte* from;
  std::size_t offset;
  std::size_t nbytes;
  std::size_t place;
};

// All of one version. Addresses must stay valid, and what they point to unchanged, until the fill has ended.
struct Contents {
  std::byte* base;       // of a writable mapping of the frame
  std::size_t capacity;  // of that mapping, in bytes
  FrameHeader header;    // checksums and `fills` are filled in
  std::vector<std::byte> manifest;
  std::vector<std::uint32_t> sums;  // those of tensors that are in the frame already, others 0
  std::vector<Tensor> tensors;      // in the order in which they are to be copied
};

// Thread safety: take_part() from any threads at once; the last one that ends a part seals the frame.
//
// Invariants:
//   1. A part is copied once, by one thread.
//   2. The frame is sealed only when all parts were copied.
//   3. After ended() nothing is stored in the frame.
class Fill {
 public:
  // Takes the frame's seal away and writes the manifest. Throws NativeError for contents that do not fit, and
  // then the frame is as it was.
  explicit Fill(Contents contents);

  // Copies one part on the calling thread and returns its bytes, 0 when none is left to take.
  std::size_t take_part();

  // No further part is taken.
  void cancel() { cancelled_.store(true); }

  // Sealed, or cancelled with no part under way. Nothing is stored in the frame any more.
  [[nodiscard]] bool ended() const { return sealed() || (cancelled_.load() && under_way_.load() == 0); }
  [[nodiscard]] bool sealed() const { return sealed_.load(std::memory_order_acquire); }
  [[nodiscard]] std::uint64_t nbytes() const { return nbytes_; }

 private:
  struct Part {
    std::size_t tensor;
    std::size_t at;
    std::size_t nbytes;
  };

  void check() const;
  void copy(std::size_t index);
  void seal();
  void join_sums();

  Contents contents_;
  FrameWriter<> writer_;
  std::vector<Part> parts_;
  std::vector<std::uint32_t> part_sums_;
  std::uint64_t nbytes_ = 0;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> left_;
  std::atomic<std::size_t> under_way_{0};
  std::atomic<bool> cancelled_{false};
  std::atomic<bool> sealed_{false};
};

}  // namespace hpresil
