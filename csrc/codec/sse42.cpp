// 16 bytes at a time.
#include <immintrin.h>

#include "codec/kernel.h"

namespace hpresil::codec_detail {
namespace {

using Vector = __m128i;
constexpr std::size_t kLanes = 1;

inline Vector load(const std::byte* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
inline void store(std::byte* to, Vector value) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value); }
inline Vector load_lanes(const std::byte* from, std::size_t /*gap*/) { return load(from); }
inline void store_lanes(std::byte* to, std::size_t /*gap*/, Vector value) { store(to, value); }
inline Vector every_lane(long long low, long long high) { return _mm_set_epi64x(high, low); }
inline Vector permute(Vector x, Vector places) { return _mm_shuffle_epi8(x, places); }
inline Vector either(Vector a, Vector b) { return _mm_xor_si128(a, b); }
inline Vector low8(Vector a, Vector b) { return _mm_unpacklo_epi8(a, b); }
inline Vector high8(Vector a, Vector b) { return _mm_unpackhi_epi8(a, b); }
inline Vector low16(Vector a, Vector b) { return _mm_unpacklo_epi16(a, b); }
inline Vector high16(Vector a, Vector b) { return _mm_unpackhi_epi16(a, b); }
inline Vector low32(Vector a, Vector b) { return _mm_unpacklo_epi32(a, b); }
inline Vector high32(Vector a, Vector b) { return _mm_unpackhi_epi32(a, b); }
inline Vector low64(Vector a, Vector b) { return _mm_unpacklo_epi64(a, b); }
inline Vector high64(Vector a, Vector b) { return _mm_unpackhi_epi64(a, b); }

#include "codec/planes.inl"

}  // namespace

const Kernel kSse42{exclusive_or, {split2, split4, split8}, {join2, join4, join8}};

}  // namespace hpresil::codec_detail
