// AVX2, 32-byte streaming stores.
#include <immintrin.h>

#include "checksum/kernel.h"
#include "checksum/polynomial.h"

namespace hpresil::crc32c_detail {
namespace {

inline void stream_line(std::byte* to, const std::byte* from) {
  for (std::size_t i = 0; i < 64; i += 32) {
    const __m256i part = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to + i), part);
  }
}

#include "checksum/lanes.inl"

}  // namespace

const Kernel kAvx2{extend, copy, stream};

}  // namespace hpresil::crc32c_detail
