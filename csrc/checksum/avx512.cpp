// AVX-512, 64-byte streaming stores.
#include <immintrin.h>

#include "checksum/kernel.h"
#include "checksum/polynomial.h"

namespace hpresil::crc32c_detail {
namespace {

inline void stream_line(std::byte* to, const std::byte* from) {
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
}

#include "checksum/lanes.inl"

}  // namespace

const Kernel kAvx512{extend, copy, stream};

}  // namespace hpresil::crc32c_detail
