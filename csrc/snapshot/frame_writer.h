// The writer's side of the seal protocol.
//
// free → filling → sealed(version, checksum). Every store into a frame happens in this order:
//   1. the seal word becomes 0, and nothing below is visible to anybody before that is;
//   2. manifest and tensors, in any order, by any threads;
//   3. the table of checksums, then the header;
//   4. the seal word, with release order: whoever sees it sees everything above.
// A writer that is killed between any two of them leaves a frame that was not touched, or one without a seal.
//
// Store is how an aligned word gets into memory; a test counts the words and stops at any of them.
#pragma once

#include <atomic>
#include <cstring>
#include <span>

#include "base/error.h"
#include "snapshot/header.h"

namespace hpresil {

struct PlainStore {
  void operator()(std::uint64_t* to, std::uint64_t value) const {
    std::atomic_ref<std::uint64_t>(*to).store(value, std::memory_order_release);
  }
};

// Nothing after it becomes visible before anything in front of it, streaming stores included.
inline void store_fence() {
#if !defined(__SANITIZE_THREAD__)  // which knows no fences, and sees no stores of other processes either
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// Thread safety: none; one writer at a time for each frame, in all processes.
template <typename Store = PlainStore>
class FrameWriter {
 public:
  // `base` is the start of a writable mapping of `capacity` bytes, aligned to a page.
  FrameWriter(std::byte* base, std::size_t capacity, Store store = {})
      : base_(base), capacity_(capacity), store_(std::move(store)) {
    expects(capacity >= kHeaderBytes, "a frame is at least a header");
  }

  // Takes the seal away. Returns which filling of this memory it is.
  std::uint64_t open() {
    HeaderPage page{};
    std::memcpy(page.data(), base_, kHeaderBytes);
    std::uint64_t fills = 0;
    try {
      fills = unpack_header(page, capacity_).fills;
    } catch (const NativeError&) {  // never filled
    }
    store_(word(kSealOffset), 0);
    store_fence();
    return fills + 1;
  }

  void write_manifest(const FrameHeader& header, std::span<const std::byte> manifest) {
    write(header.manifest_offset, manifest);
  }

  // Everything else is there. `header` has the right checksums but that of the manifest's and the tables'
  // places.
  void seal(const FrameHeader& header, std::span<const std::uint32_t> sums) {
    write(header.sums_offset, std::as_bytes(sums));
    const HeaderPage page = pack_header(header);
    write(0, std::span(page).first(kSealOffset));
    store_fence();
    store_(word(kSealOffset), seal_of(page));
  }

 private:
  [[nodiscard]] std::uint64_t* word(std::size_t offset) const {
    return reinterpret_cast<std::uint64_t*>(base_ + offset);
  }
  // Whole words; a last one that is not full is filled up with zeros, for which every part has room.
  void write(std::size_t offset, std::span<const std::byte> bytes) {
    for (std::size_t at = 0; at < bytes.size(); at += 8) {
      std::uint64_t value = 0;
      std::memcpy(&value, bytes.data() + at, std::min<std::size_t>(8, bytes.size() - at));
      store_(word(offset + at), value);
    }
  }

  std::byte* base_;
  std::size_t capacity_;
  Store store_;
};

}  // namespace hpresil
