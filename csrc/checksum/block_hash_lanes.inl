// The lanes of one segment, kept in registers from its first stripe to its last.
//
// Included by one source file per instruction set, after it has defined Vector, its kWidth in words and
// the operations on it, inside its anonymous namespace. The lanes are taken in groups that fit the
// registers, so with narrow vectors the segment, which fits the first-level cache, is read more than once.
// Calls nothing of the standard library, as in lanes.inl.

constexpr unsigned kRegisters = 8;  // of 16, half are left for operands
constexpr unsigned kGroup = kRegisters * kWidth < kLanes ? kRegisters * kWidth : kLanes;

inline Vector product(Vector word, const std::uint64_t* keys) {
  const Vector x = exclusive_or(word, load(keys));
  return multiply_low(x, high_to_low(x));
}

void accumulate(std::uint64_t* lanes, const std::byte* data, unsigned stripes) {
  const std::uint64_t* const keys = kKey.at;
  for (unsigned first = 0; first < kLanes; first += kGroup) {
    Vector sums[kGroup / kWidth];
    for (unsigned v = 0; v < kGroup / kWidth; ++v) {
      sums[v] = load(lanes + first + v * kWidth);
    }
    for (unsigned s = 0; s < stripes; ++s) {
      const std::byte* const stripe = data + s * kStripeBytes + std::size_t{first} * 8;
      for (unsigned v = 0; v < kGroup / kWidth; ++v) {
        const Vector word = load(stripe + std::size_t{v} * kWidth * 8);
        const Vector more = product(word, keys + s + first + v * kWidth);
        sums[v] = add(sums[v], add(more, swap_neighbours(word)));
      }
    }
    for (unsigned v = 0; v < kGroup / kWidth; ++v) {
      store(lanes + first + v * kWidth, sums[v]);
    }
  }
}
