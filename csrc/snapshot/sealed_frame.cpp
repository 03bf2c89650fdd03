#include "snapshot/sealed_frame.h"

#include <atomic>
#include <cstring>
#include <string>

#include "base/error.h"
#include "checksum/crc32c.h"
#include "snapshot/frame_writer.h"

namespace hpresil {
namespace {

std::uint64_t load(const std::byte* from, std::memory_order order) {
  // atomic_ref takes no const object before C++26; a load changes nothing.
  auto* word = reinterpret_cast<std::uint64_t*>(const_cast<std::byte*>(from));  // NOLINT
  return __atomic_load_n(word, static_cast<int>(order));
}

HeaderPage read_page(const std::byte* base) {
  HeaderPage page{};
  const std::uint64_t seal = load(base + kSealOffset, std::memory_order_acquire);
  for (std::size_t at = 0; at < kSealOffset; at += 8) {
    const std::uint64_t word = load(base + at, std::memory_order_acquire);
    std::memcpy(page.data() + at, &word, 8);
  }
  std::memcpy(page.data() + kSealOffset, &seal, 8);
  return page;
}

std::uint32_t sum(const void* data, std::size_t nbytes) {
  return crc32c(static_cast<const std::byte*>(data), nbytes, 0, cpu_level());
}

}  // namespace

SealedFrame::SealedFrame(const std::byte* base, std::size_t nbytes) : base_(base), nbytes_(nbytes) {
  expects(nbytes >= kHeaderBytes, "the frame is truncated: it has no room for a header");
  const HeaderPage page = read_page(base);
  header_ = parse_header(page, nbytes);
  seal_ = seal_of(page);
  expects(header_.whole(), "the frame is not whole: its writer has not finished or died");
  expects(sum(base + header_.manifest_offset, header_.manifest_bytes) == header_.manifest_crc,
          "the frame's manifest is damaged; take the state from another source");
  sums_.resize(header_.tensors());
  if (!sums_.empty()) {
    std::memcpy(sums_.data(), base + header_.sums_offset, header_.sums_bytes);
  }
  std::size_t place = 0;
  for (const Section& section : header_.sections) {
    expects(sum(sums_.data() + place, std::size_t{4} * section.tensors) == section.crc,
            "the frame's checksums are damaged; take the state from another source");
    place += section.tensors;
  }
  expects(still_sealed(), "the frame was filled anew while it was opened");
}

bool SealedFrame::still_sealed() const {
  store_fence();  // what was read before was read before this
  return load(base_ + kSealOffset, std::memory_order_acquire) == seal_;
}

void SealedFrame::copy(std::span<const Taken> taken) const {
  for (const Taken& one : taken) {
    expects(one.place < sums_.size() && one.nbytes <= header_.frame_bytes &&
                one.offset <= header_.frame_bytes - one.nbytes,
            "no such tensor is in the frame");
    const std::uint32_t found = copy_crc32c(Piece{one.to, base_ + one.offset, one.nbytes}, cpu_level());
    if (found != sums_[one.place]) {
      fail("tensor " + std::to_string(one.place) + " of the frame of version " +
           std::to_string(header_.version) + " is damaged, or was overwritten while it was read");
    }
  }
  expects(still_sealed(), "the frame was filled anew while it was read");
}

}  // namespace hpresil
