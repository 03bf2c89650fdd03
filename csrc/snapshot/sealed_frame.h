// The reader's side of the seal protocol.
//
// The seal is read before and after everything else, and holds the checksum of the header, which holds those
// of the manifest and of the tables, which hold those of the tensors. So what a reader has taken in and
// checked is one version, whole, whatever its writer did meanwhile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "snapshot/header.h"

namespace hpresil {

// One tensor in a frame: `place` in the table of checksums, and where it goes.
struct Taken {
  std::size_t place;
  std::size_t offset;
  std::size_t nbytes;
  std::byte* to;
};

// Thread safety: one thread at a time for each object, any number of objects.
class SealedFrame {
 public:
  // `base` is a mapping of `nbytes`, which must stay. Throws NativeError unless the frame is sealed and
  // whole, and its header, manifest and tables are what was sealed.
  SealedFrame(const std::byte* base, std::size_t nbytes);

  [[nodiscard]] const FrameHeader& header() const { return header_; }

  // Whether the frame is still the one that was opened.
  [[nodiscard]] bool still_sealed() const;

  // Copies tensors out on one thread. Throws NativeError if one is damaged, or the frame was filled anew
  // meanwhile: what was copied is then worth nothing.
  void copy(std::span<const Taken> taken) const;

 private:
  const std::byte* base_;
  std::size_t nbytes_;
  std::uint64_t seal_ = 0;
  FrameHeader header_{};
  std::vector<std::uint32_t> sums_;
};

}  // namespace hpresil
