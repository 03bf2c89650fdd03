// Reductions whose order is part of their definition.
//
// Sum of squares: element i belongs to lane i mod 16; each lane adds its squares in ascending order in
// double precision; then lane j takes in lane j + 8, j + 4, j + 2, j + 1. No lane depends on another,
// so any vector width gives the same bits. The square of a float is exact in a double.
//
// Included inside the anonymous namespace of one source file per instruction set. The compiler may
// widen these loops but not reorder or contract them (-ffp-contract=off, no -ffast-math). Calls
// nothing of the standard library, as in checksum/lanes.inl.

constexpr std::size_t kLanes = 16;

template <typename T>
double square_sum(const T* from, std::size_t count) {
  double lane[kLanes] = {};
  std::size_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (std::size_t j = 0; j < kLanes; ++j) {
      const auto value = static_cast<double>(from[i + j]);
      lane[j] += value * value;
    }
  }
  for (std::size_t j = 0; i + j < count; ++j) {
    const auto value = static_cast<double>(from[i + j]);
    lane[j] += value * value;
  }
  for (std::size_t width = kLanes / 2; width > 0; width /= 2) {
    for (std::size_t j = 0; j < width; ++j) {
      lane[j] += lane[j + width];
    }
  }
  return lane[0];
}

// A tile stays in the first-level cache while all sources are added to it, so that the destination is
// written once and may be any one of the sources.
template <typename T>
void add_ordered(T* to, const T* const* sources, std::size_t sources_count, std::size_t begin,
                 std::size_t end) {
  constexpr std::size_t kTile = 1024;
  T sum[kTile];
  for (; begin < end; begin += kTile) {
    const std::size_t size = end - begin < kTile ? end - begin : kTile;
    __builtin_memcpy(sum, sources[0] + begin, size * sizeof(T));
    for (std::size_t s = 1; s < sources_count; ++s) {
      const T* source = sources[s] + begin;
      for (std::size_t i = 0; i < size; ++i) {
        sum[i] = sum[i] + source[i];
      }
    }
    __builtin_memcpy(to + begin, sum, size * sizeof(T));
  }
}
