// Three interleaved CRC-32C streams, with or without a copy by streaming stores.
//
// The crc32 instruction takes eight bytes a cycle but answers after three: one stream would use a
// third of the machine. So three neighbouring lanes of a block advance together and their registers
// are joined by a table shift.
//
// The copy passes whole cache lines through wide stores that bypass the cache, so the destination is
// not read first. It goes straight through memory, and the checksum follows one block behind it, where
// the source is in the cache already: arithmetic and memory overlap. (Copying along the three lanes
// instead was up to eight times slower where lanes are a multiple of 4096 bytes apart.)
//
// Included by one source file per instruction set, after it has defined stream_line(to, from) and
// inside its anonymous namespace; compiled with that set's flags. Calls no inline function of the
// standard library, because the linker may keep any copy of those, also one for a newer machine.

constexpr std::size_t kLine = 64;
constexpr std::size_t kLongLane = 4096;
constexpr std::size_t kShortLane = 512;
constexpr std::size_t kBlock = 3 * kShortLane;  // what the copy moves at once
constexpr std::size_t kAhead = 2048;            // how far before its use a line is asked for
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

inline void copy_three_lines(std::byte* to, const std::byte* from) {
  for (std::size_t at = 0; at < 3 * kLine; at += kLine) {
    _mm_prefetch(reinterpret_cast<const char*>(from + at + kAhead), _MM_HINT_T0);
    stream_line(to + at, from + at);
  }
}

// The checksum of the three lanes at `data`; meanwhile, with kCopy, the next block goes to `to`, which
// is aligned to a line.
template <std::size_t kLane, bool kCopy>
inline std::uint32_t block(std::uint32_t state, const std::byte* data, const Shift& shift, std::byte* to) {
  std::uint64_t a = state;
  std::uint64_t b = 0;
  std::uint64_t c = 0;
  for (std::size_t line = 0; line < kLane; line += kLine) {
    if constexpr (kCopy) {
      copy_three_lines(to + 3 * line, data + 3 * kLane + 3 * line);
    }
    for (std::size_t at = line; at < line + kLine; at += 8) {
      a = _mm_crc32_u64(a, load(data + at));
      b = _mm_crc32_u64(b, load(data + kLane + at));
      c = _mm_crc32_u64(c, load(data + 2 * kLane + at));
    }
  }
  const std::uint32_t ab = shift(static_cast<std::uint32_t>(a)) ^ static_cast<std::uint32_t>(b);
  return shift(ab) ^ static_cast<std::uint32_t>(c);
}

std::uint32_t extend(std::uint32_t state, const std::byte* data, std::size_t nbytes) {
  for (; nbytes >= 3 * kLongLane; nbytes -= 3 * kLongLane, data += 3 * kLongLane) {
    state = block<kLongLane, false>(state, data, kShiftLong, nullptr);
  }
  for (; nbytes >= 3 * kShortLane; nbytes -= 3 * kShortLane, data += 3 * kShortLane) {
    state = block<kShortLane, false>(state, data, kShiftShort, nullptr);
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
  if (nbytes < head + kBlock) {
    return copy_plain(state, to, from, nbytes);
  }
  state = copy_plain(state, to, from, head);
  to += head;
  from += head;
  nbytes -= head + kBlock;
  for (std::size_t at = 0; at < kBlock; at += 3 * kLine) {
    copy_three_lines(to + at, from + at);
  }
  for (; nbytes >= kBlock; nbytes -= kBlock, to += kBlock, from += kBlock) {
    state = block<kShortLane, true>(state, from, kShiftShort, to + kBlock);
  }
  state = block<kShortLane, false>(state, from, kShiftShort, nullptr);
  _mm_sfence();  // streaming stores are not ordered with what follows, a seal word for instance
  return copy_plain(state, to + kBlock, from + kBlock, nbytes);
}

void stream(std::byte* to, const std::byte* from, std::size_t nbytes) {
  const std::size_t head = (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine;
  if (nbytes < head + 3 * kLine) {
    if (nbytes > 0) {
      __builtin_memcpy(to, from, nbytes);
    }
    return;
  }
  __builtin_memcpy(to, from, head);
  std::size_t at = head;
  for (; nbytes - at >= 3 * kLine; at += 3 * kLine) {
    copy_three_lines(to + at, from + at);
  }
  _mm_sfence();
  __builtin_memcpy(to + at, from + at, nbytes - at);
}
