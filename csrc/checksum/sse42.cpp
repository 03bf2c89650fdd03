// SSE4.2, 16-byte streaming stores.
#include <immintrin.h>

#include "checksum/kernel.h"
#include "checksum/polynomial.h"

namespace hpresil::crc32c_detail {
namespace {

inline void stream_line(std::byte* to, const std::byte* from) {
  for (std::size_t i = 0; i < 64; i += 16) {
    const __m128i part = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
    _mm_stream_si128(reinterpret_cast<__m128i*>(to + i), part);
  }
}

#include "checksum/lanes.inl"

}  // namespace

const Kernel kSse42{extend, copy, stream};

}  // namespace hpresil::crc32c_detail
