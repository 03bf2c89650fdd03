#include "checksum/crc32c.h"

#include <algorithm>

#include "base/error.h"
#include "base/thread.h"
#include "checksum/kernel.h"
#include "checksum/polynomial.h"
#include "trace/span.h"

namespace hpresil {
namespace {

using crc32c_detail::Kernel;

// Large enough that joining costs nothing, small enough that the last one does not keep others idle.
constexpr std::size_t kPartBytes = std::size_t{2} << 20;

struct Part {
  std::size_t piece;
  std::size_t offset;
  std::size_t nbytes;
};

const Kernel& kernel_of(CpuLevel level) {
#if defined(__x86_64__)
  switch (level) {
    case CpuLevel::portable:
      return crc32c_detail::kPortable;
    case CpuLevel::sse42:
      return crc32c_detail::kSse42;
    case CpuLevel::avx2:
      return crc32c_detail::kAvx2;
    case CpuLevel::avx512:
      return crc32c_detail::kAvx512;
  }
#else
  static_cast<void>(level);
#endif
  return crc32c_detail::kPortable;
}

std::size_t bytes_in(std::span<const Piece> pieces) {
  std::size_t sum = 0;
  for (const Piece& piece : pieces) {
    sum += piece.nbytes;
  }
  return sum;
}

std::vector<Part> split(std::span<const Piece> pieces) {
  std::vector<Part> parts;
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    for (std::size_t at = 0; at < pieces[i].nbytes; at += kPartBytes) {
      parts.push_back({i, at, std::min(kPartBytes, pieces[i].nbytes - at)});
    }
  }
  return parts;
}

}  // namespace

std::uint32_t crc32c(const std::byte* data, std::size_t nbytes, std::uint32_t seed, CpuLevel level) {
  const Span span = Span::of_bytes(SpanName::checksum, nbytes);
  return ~kernel_of(level).extend(~seed, data, nbytes);
}

std::uint32_t crc32c_join(std::uint32_t first, std::uint32_t second, std::uint64_t second_bytes) {
  return crc32c_detail::multiply(crc32c_detail::power_of_bytes(second_bytes), first) ^ second;
}

std::uint32_t copy_crc32c(const Piece& piece, CpuLevel level) {
  return ~kernel_of(level).copy(~0U, piece.to, piece.from, piece.nbytes);
}

std::vector<std::uint32_t> copy_crc32c(std::span<const Piece> pieces, int threads, CpuLevel level) {
  expects(threads >= 1, "threads must be at least 1");
  const Kernel& kernel = kernel_of(level);
  const Span span = Span::of_bytes(SpanName::copy, bytes_in(pieces));
  const std::vector<Part> parts = split(pieces);
  std::vector<std::uint32_t> sums(parts.size());
  run_parallel(threads, parts.size(), [&](std::size_t i) {
    const Part& part = parts[i];
    const Piece& piece = pieces[part.piece];
    sums[i] = ~kernel.copy(~0U, piece.to + part.offset, piece.from + part.offset, part.nbytes);
  });
  std::vector<std::uint32_t> results(pieces.size(), 0);
  for (std::size_t i = 0; i < parts.size(); ++i) {
    std::uint32_t& whole = results[parts[i].piece];
    whole = parts[i].offset == 0 ? sums[i] : crc32c_join(whole, sums[i], parts[i].nbytes);
  }
  return results;
}

void stream_copy(std::span<const Piece> pieces, int threads, CpuLevel level) {
  expects(threads >= 1, "threads must be at least 1");
  const Kernel& kernel = kernel_of(level);
  const std::vector<Part> parts = split(pieces);
  run_parallel(threads, parts.size(), [&](std::size_t i) {
    const Part& part = parts[i];
    const Piece& piece = pieces[part.piece];
    kernel.stream(piece.to + part.offset, piece.from + part.offset, part.nbytes);
  });
}

}  // namespace hpresil
