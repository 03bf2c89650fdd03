#include "snapshot/header.h"

#include <bit>
#include <cstring>
#include <string>

#include "base/error.h"
#include "checksum/crc32c.h"

static_assert(std::endian::native == std::endian::little, "frames are little-endian, and read in place");

namespace hpresil {
namespace {

constexpr std::array<char, 8> kMagic{'h', 'p', 'r', 'e', 's', 'i', 'l', 'F'};
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 56;  // so that no sum of two sizes overflows

// As they lie in the page.
struct Fixed {
  std::array<char, 8> magic;
  std::uint32_t format;
  std::uint32_t header_bytes;
  FrameHeader header;
};
static_assert(sizeof(Section) == 24 && sizeof(FrameHeader) == 72 + kSections * 24 && sizeof(Fixed) == 184);

std::uint64_t right_seal(const HeaderPage& page) {
  const std::uint64_t crc = crc32c(page.data(), kSealOffset, 0, cpu_level());
  return crc << 32 | kSealMark;
}

bool inside(std::uint64_t offset, std::uint64_t nbytes, std::uint64_t end) {
  return offset <= end && nbytes <= end - offset;
}

void check(bool holds, const char* what) {
  if (!holds) {
    fail(std::string("the frame's header is wrong about ") + what + "; take the state from another source");
  }
}

void check_numbers(const FrameHeader& header, std::uint64_t file_bytes) {
  check(header.frame_bytes >= kHeaderBytes && header.frame_bytes <= kMostBytes, "its size");
  if (header.frame_bytes > file_bytes) {
    fail("the frame is truncated: " + std::to_string(file_bytes) + " of " +
         std::to_string(header.frame_bytes) + " bytes are there");
  }
  check(header.manifest_offset == kHeaderBytes &&
            inside(header.manifest_offset, header.manifest_bytes, header.sums_offset),
        "its manifest");
  check(header.sums_offset % 8 == 0 && header.sums_bytes % 4 == 0 &&
            inside(header.sums_offset, header.sums_bytes, header.frame_bytes),
        "its checksums");
  std::uint64_t end = header.sums_offset + header.sums_bytes;
  std::uint64_t tensors = 0;
  for (const Section& section : header.sections) {
    check(section.offset >= end && inside(section.offset, section.nbytes, header.frame_bytes), "a section");
    end = section.offset + section.nbytes;
    tensors += section.tensors;
  }
  check(tensors == header.tensors() && header.there <= tensors, "the number of its tensors");
}

}  // namespace

HeaderPage pack_header(const FrameHeader& header) {
  const Fixed fixed{kMagic, kFrameFormat, kHeaderBytes, header};
  HeaderPage page{};
  std::memcpy(page.data(), &fixed, sizeof(fixed));
  const std::uint64_t seal = right_seal(page);
  std::memcpy(page.data() + kSealOffset, &seal, sizeof(seal));
  return page;
}

FrameHeader unpack_header(const HeaderPage& page, std::uint64_t file_bytes) {
  Fixed fixed{};
  std::memcpy(&fixed, page.data(), sizeof(fixed));
  if (fixed.magic != kMagic) {
    fail("this memory is not a snapshot frame (no magic number), or was never filled");
  }
  if (fixed.format != kFrameFormat || fixed.header_bytes != kHeaderBytes) {
    fail("the frame has format " + std::to_string(fixed.format) + ", this hpresil reads " +
         std::to_string(kFrameFormat) + "; use one version of it");
  }
  check_numbers(fixed.header, file_bytes);
  return fixed.header;
}

FrameHeader parse_header(const HeaderPage& page, std::uint64_t file_bytes) {
  const std::uint64_t seal = seal_of(page);
  if (seal == 0) {
    fail("the frame is not sealed: its writer has not finished or died; take the state from another source");
  }
  if (seal != right_seal(page)) {
    fail("the frame has a damaged header; take the state from another source");
  }
  return unpack_header(page, file_bytes);
}

std::uint64_t seal_of(const HeaderPage& page) {
  std::uint64_t seal = 0;
  std::memcpy(&seal, page.data() + kSealOffset, sizeof(seal));
  return seal;
}

}  // namespace hpresil
