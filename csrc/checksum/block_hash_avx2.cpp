// The lanes of the block hash, 32 bytes at a time.
#include <immintrin.h>

#include "checksum/block_hash_lanes.h"

namespace hpresil::block_hash_detail {
namespace {

using Vector = __m256i;
constexpr unsigned kWidth = 4;

inline Vector load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
inline void store(void* to, Vector value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }
inline Vector add(Vector a, Vector b) { return _mm256_add_epi64(a, b); }
inline Vector exclusive_or(Vector a, Vector b) { return _mm256_xor_si256(a, b); }
inline Vector high_to_low(Vector x) { return _mm256_srli_epi64(x, 32); }
inline Vector multiply_low(Vector a, Vector b) { return _mm256_mul_epu32(a, b); }
inline Vector swap_neighbours(Vector x) { return _mm256_shuffle_epi32(x, 0x4E); }

#include "checksum/block_hash_lanes.inl"

}  // namespace

const Accumulate kAvx2 = accumulate;

}  // namespace hpresil::block_hash_detail
