// The lanes of the block hash, 64 bytes at a time.
#include <immintrin.h>

#include "checksum/block_hash_lanes.h"

namespace hpresil::block_hash_detail {
namespace {

using Vector = __m512i;
constexpr unsigned kWidth = 8;
// The forms without a mask set off a false warning of GCC 12 (uninitialized); a mask of ones costs nothing.
constexpr __mmask8 kEvery = 0xFF;

inline Vector load(const void* from) { return _mm512_loadu_si512(from); }
inline void store(void* to, Vector value) { _mm512_storeu_si512(to, value); }
inline Vector add(Vector a, Vector b) { return _mm512_add_epi64(a, b); }
inline Vector exclusive_or(Vector a, Vector b) { return _mm512_xor_si512(a, b); }
inline Vector high_to_low(Vector x) { return _mm512_maskz_srli_epi64(kEvery, x, 32); }
inline Vector multiply_low(Vector a, Vector b) { return _mm512_maskz_mul_epu32(kEvery, a, b); }
inline Vector swap_neighbours(Vector x) { return _mm512_maskz_shuffle_epi32(0xFFFF, x, _MM_PERM_BADC); }

#include "checksum/block_hash_lanes.inl"

}  // namespace

const Accumulate kAvx512 = accumulate;

}  // namespace hpresil::block_hash_detail
