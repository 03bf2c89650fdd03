#include "snapshot/fill.h"

#include <algorithm>
#include <utility>

#include "base/cpu.h"
#include "base/error.h"
#include "checksum/crc32c.h"
#include "checksum/polynomial.h"

namespace hpresil {
namespace {

// About 50 us: so long is a part under way that somebody may have to wait for.
constexpr std::size_t kPartBytes = std::size_t{512} << 10;

std::uint32_t sum(const void* data, std::size_t nbytes) {
  return crc32c(static_cast<const std::byte*>(data), nbytes, 0, cpu_level());
}

// The checksum of everything up to and with one more part. Nearly all parts have the same size: for those the
// power of x is there already.
std::uint32_t join(std::uint32_t whole, std::uint32_t part, std::size_t nbytes) {
  static const crc32c_detail::Shift shift{kPartBytes};
  return nbytes == kPartBytes ? shift(whole) ^ part : crc32c_join(whole, part, nbytes);
}

}  // namespace

Fill::Fill(Contents contents)
    : contents_(std::move(contents)), writer_(contents_.base, contents_.capacity), left_(1) {
  check();
  for (std::size_t i = 0; i < contents_.tensors.size(); ++i) {
    const std::size_t nbytes = contents_.tensors[i].nbytes;
    nbytes_ += nbytes;
    for (std::size_t at = 0; at < nbytes; at += kPartBytes) {
      parts_.push_back({i, at, std::min(kPartBytes, nbytes - at)});
    }
  }
  part_sums_.resize(parts_.size());
  left_ = parts_.size();
  contents_.header.fills = writer_.open();
  writer_.write_manifest(contents_.header, contents_.manifest);
  if (parts_.empty()) {
    seal();
  }
}

void Fill::check() const {
  const FrameHeader& header = contents_.header;
  unpack_header(pack_header(header), contents_.capacity);  // the places it names, and that they fit
  expects(header.whole(), "a frame that is filled has all its tensors");
  expects(header.manifest_bytes == contents_.manifest.size(),
          "the header is wrong about the manifest's size");
  expects(header.tensors() == contents_.sums.size(), "the header is wrong about the number of tensors");
  const std::uint64_t start = header.sections.front().offset;
  for (const Tensor& tensor : contents_.tensors) {
    expects(tensor.place < contents_.sums.size() && tensor.offset >= start &&
                tensor.nbytes <= header.frame_bytes && tensor.offset <= header.frame_bytes - tensor.nbytes,
            "a tensor lies outside its frame");
  }
}

std::size_t Fill::take_part() {
  ++under_way_;
  const std::size_t index = cancelled_.load() ? parts_.size() : next_.fetch_add(1);
  std::size_t nbytes = 0;
  if (index < parts_.size()) {
    copy(index);
    nbytes = parts_[index].nbytes;
    if (left_.fetch_sub(1) == 1 && !cancelled_.load()) {
      seal();
    }
  }
  --under_way_;
  return nbytes;
}

void Fill::copy(std::size_t index) {
  const Part& part = parts_[index];
  const Tensor& tensor = contents_.tensors[part.tensor];
  const Piece piece{contents_.base + tensor.offset + part.at, tensor.from + part.at, part.nbytes};
  part_sums_[index] = copy_crc32c(piece, cpu_level());
}

void Fill::seal() {
  join_sums();
  FrameHeader& header = contents_.header;
  header.manifest_crc = sum(contents_.manifest.data(), contents_.manifest.size());
  std::size_t place = 0;
  for (Section& section : header.sections) {
    section.crc = sum(contents_.sums.data() + place, std::size_t{4} * section.tensors);
    place += section.tensors;
  }
  writer_.seal(header, contents_.sums);
  sealed_.store(true, std::memory_order_release);
}

void Fill::join_sums() {
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    const Part& part = parts_[i];
    std::uint32_t& whole = contents_.sums[contents_.tensors[part.tensor].place];
    whole = part.at == 0 ? part_sums_[i] : join(whole, part_sums_[i], part.nbytes);
  }
}

}  // namespace hpresil
