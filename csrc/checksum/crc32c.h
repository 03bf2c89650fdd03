// CRC-32C (Castagnoli), the checksum of every byte that hpresil moves or keeps on the host, and the
// copy that computes it on the way.
//
// Values are those of RFC 3720 and of google-crc32c: crc32c("123456789") = 0xE3069283. Results do not
// depend on level, alignment or thread count. Thread safe; nothing throws but bad arguments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/cpu.h"

namespace hpresil {

// Checksum of `seed`'s bytes followed by `data`; a seed of 0 stands for nothing before.
std::uint32_t crc32c(const std::byte* data, std::size_t nbytes, std::uint32_t seed, CpuLevel level);

// Checksum of two pieces laid end to end, from their own checksums.
std::uint32_t crc32c_join(std::uint32_t first, std::uint32_t second, std::uint64_t second_bytes);

struct Piece {
  std::byte* to;
  const std::byte* from;
  std::size_t nbytes;
};

// Copies one piece on the calling thread and returns its checksum.
std::uint32_t copy_crc32c(const Piece& piece, CpuLevel level);

// Copies every piece and returns the checksum of each, on up to `threads` threads among which the
// bytes are balanced. No destination may overlap a source.
std::vector<std::uint32_t> copy_crc32c(std::span<const Piece> pieces, int threads, CpuLevel level);

// The same copy without checksums: what the streaming stores of this machine can do.
void stream_copy(std::span<const Piece> pieces, int threads, CpuLevel level);

}  // namespace hpresil
