// Three interleaved CRC-32C streams, with or without a copy by streaming stores.
//
// The crc32 instruction takes eight bytes a cycle but answers after three: one stream would use a
// third of the machine. So three neighbouring lanes of a block advance together and their registers
// are joined by a table shift. The copy passes each cache line through wide stores that bypass the
// cache: the destination is not read first, which is what makes it faster than memcpy.
//
// Included by one source file per instruction set, after it has defined stream_line(to, from) and
// inside its anonymous namespace; compiled with that set's flags. Calls no inline function of the
// standard library, because the linker may keep any copy of those, also one for a newer machine.

constexpr std::size_t kLine = 64;
constexpr std::size_t kLongLane = 4096;
constexpr std::size_t kShortLane = 256;
constexpr Shift kShiftLong{kLongLane};
constexpr Shift kShiftShort{kShortLane};

inline std::uint64_t load(const std::byte* from) {
  std::uint64_t word = 0;
  __builtin_memcpy(&word, from, 8);
  return word;
}

inline std::uint32_t serial(std::uint32_t state, const std::byte* data, std::size_t nbytes) {
  std::uint64_t wide = state;
  for (; nbytes >= 8; nbytes -= 8, data += 8) {
    wide = _mm_crc32_u64(wide, load(data));
  }
  state = static_cast<std::uint32_t>(wide);
  for (; nbytes > 0; --nbytes, ++data) {
    state = _mm_crc32_u8(state, static_cast<unsigned char>(*data));
  }
  return state;
}

// One block of three lanes. With kCopy, `to` is aligned to a line.
template <std::size_t kLane, bool kCopy>
inline std::uint32_t block(std::uint32_t state, std::byte* to, const std::byte* from, const Shift& shift) {
  std::uint64_t a = state;
  std::uint64_t b = 0;
  std::uint64_t c = 0;
  for (std::size_t line = 0; line < kLane; line += kLine) {
    if constexpr (kCopy) {
      stream_line(to + line, from + line);
      stream_line(to + kLane + line, from + kLane + line);
      stream_line(to + 2 * kLane + line, from + 2 * kLane + line);
    }
    for (std::size_t at = line; at < line + kLine; at += 8) {
      a = _mm_crc32_u64(a, load(from + at));
      b = _mm_crc32_u64(b, load(from + kLane + at));
      c = _mm_crc32_u64(c, load(from + 2 * kLane + at));
    }
  }
  const std::uint32_t ab = shift(static_cast<std::uint32_t>(a)) ^ static_cast<std::uint32_t>(b);
  return shift(ab) ^ static_cast<std::uint32_t>(c);
}

std::uint32_t extend(std::uint32_t state, const std::byte* data, std::size_t nbytes) {
  for (; nbytes >= 3 * kLongLane; nbytes -= 3 * kLongLane, data += 3 * kLongLane) {
    state = block<kLongLane, false>(state, nullptr, data, kShiftLong);
  }
  for (; nbytes >= 3 * kShortLane; nbytes -= 3 * kShortLane, data += 3 * kShortLane) {
    state = block<kShortLane, false>(state, nullptr, data, kShiftShort);
  }
  return serial(state, data, nbytes);
}

std::uint32_t copy_plain(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t nbytes) {
  if (nbytes > 0) {
    __builtin_memcpy(to, from, nbytes);
  }
  return extend(state, from, nbytes);
}

std::uint32_t copy(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t nbytes) {
  const std::size_t head = (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine;
  if (nbytes < head + 3 * kShortLane) {
    return copy_plain(state, to, from, nbytes);
  }
  state = copy_plain(state, to, from, head);
  to += head;
  from += head;
  nbytes -= head;
  for (; nbytes >= 3 * kLongLane; nbytes -= 3 * kLongLane, to += 3 * kLongLane, from += 3 * kLongLane) {
    state = block<kLongLane, true>(state, to, from, kShiftLong);
  }
  for (; nbytes >= 3 * kShortLane; nbytes -= 3 * kShortLane, to += 3 * kShortLane, from += 3 * kShortLane) {
    state = block<kShortLane, true>(state, to, from, kShiftShort);
  }
  _mm_sfence();  // streaming stores are not ordered with what follows, a seal word for instance
  return copy_plain(state, to, from, nbytes);
}
