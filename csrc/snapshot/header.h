// The first page of a snapshot frame: docs/formats.md, format 3. The twin of
// python/hpresil/snapshot/preface.py.
//
// Parsing takes any bytes: what contradicts itself, or would lead outside the frame, is refused. Pure; any
// thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace hpresil {

constexpr std::size_t kHeaderBytes = 4096;
constexpr std::size_t kSealOffset = kHeaderBytes - 8;
constexpr std::size_t kSections = 4;
constexpr std::uint32_t kFrameFormat = 3;
constexpr std::uint64_t kSealMark =
    0x5EA1ED01;  // low half of a seal word; the high half is the CRC-32C before it

using HeaderPage = std::array<std::byte, kHeaderBytes>;

struct Section {
  std::uint64_t offset;  // from the start of the frame
  std::uint64_t nbytes;
  std::uint32_t tensors;
  std::uint32_t crc;  // of the checksums of its tensors

  bool operator==(const Section&) const = default;
};

struct FrameHeader {
  std::int64_t version;
  std::int64_t generation;
  std::uint64_t frame_bytes;
  std::uint64_t fills;  // how often this memory was filled
  std::uint64_t manifest_offset;
  std::uint64_t manifest_bytes;
  std::uint64_t sums_offset;
  std::uint64_t sums_bytes;
  std::uint32_t manifest_crc;
  std::uint32_t there;  // leading tensors that are there
  std::array<Section, kSections> sections;

  [[nodiscard]] std::uint64_t tensors() const { return sums_bytes / 4; }
  [[nodiscard]] bool whole() const { return there == tensors(); }
  bool operator==(const FrameHeader&) const = default;
};

// The page with its seal word.
HeaderPage pack_header(const FrameHeader& header);

// The numbers in the page, whether or not it is sealed. Throws NativeError where they are no header of a
// frame in a file of `file_bytes`.
FrameHeader unpack_header(const HeaderPage& page, std::uint64_t file_bytes);

// The same for a page whose seal word is right. Throws NativeError for any other.
FrameHeader parse_header(const HeaderPage& page, std::uint64_t file_bytes);

std::uint64_t seal_of(const HeaderPage& page);

}  // namespace hpresil
