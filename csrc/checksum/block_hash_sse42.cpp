// The lanes of the block hash, 16 bytes at a time.
#include <immintrin.h>

#include "checksum/block_hash_lanes.h"

namespace hpresil::block_hash_detail {
namespace {

using Vector = __m128i;
constexpr unsigned kWidth = 2;

inline Vector load(const void* from) { return _mm_loadu_si128(static_cast<const __m128i*>(from)); }
inline void store(void* to, Vector value) { _mm_storeu_si128(static_cast<__m128i*>(to), value); }
inline Vector add(Vector a, Vector b) { return _mm_add_epi64(a, b); }
inline Vector exclusive_or(Vector a, Vector b) { return _mm_xor_si128(a, b); }
inline Vector high_to_low(Vector x) { return _mm_srli_epi64(x, 32); }
inline Vector multiply_low(Vector a, Vector b) { return _mm_mul_epu32(a, b); }
inline Vector swap_neighbours(Vector x) { return _mm_shuffle_epi32(x, 0x4E); }

#include "checksum/block_hash_lanes.inl"

}  // namespace

const Accumulate kSse42 = accumulate;

}  // namespace hpresil::block_hash_detail
