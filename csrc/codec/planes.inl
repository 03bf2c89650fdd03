// Byte planes by networks of unpack instructions.
//
// Included by one source file per instruction set, after it has defined Vector (one or more lanes of 16
// bytes), its number of lanes kLanes and the operations on it, inside its anonymous namespace. Lane l holds
// the elements 16 * l to 16 * l + 15 of a group, so no instruction has to cross lanes. Calls nothing of the
// standard library, as in checksum/lanes.inl.

constexpr std::size_t kGroup = 16 * kLanes;  // elements that are done at once

inline std::size_t split2(std::byte* to, const std::byte* from, std::size_t count, std::size_t stride) {
  const Vector apart = every_lane(0x0E0C0A0806040200, 0x0F0D0B0907050301);
  std::size_t done = 0;
  for (; done + kGroup <= count; done += kGroup, from += kGroup * 2) {
    const Vector a = permute(load_lanes(from, 32), apart);
    const Vector b = permute(load_lanes(from + 16, 32), apart);
    store(to + done, low64(a, b));
    store(to + stride + done, high64(a, b));
  }
  return done;
}

inline std::size_t split4(std::byte* to, const std::byte* from, std::size_t count, std::size_t stride) {
  const Vector apart = every_lane(0x0D0905010C080400, 0x0F0B07030E0A0602);
  std::size_t done = 0;
  for (; done + kGroup <= count; done += kGroup, from += kGroup * 4) {
    const Vector a = permute(load_lanes(from, 64), apart);
    const Vector b = permute(load_lanes(from + 16, 64), apart);
    const Vector c = permute(load_lanes(from + 32, 64), apart);
    const Vector d = permute(load_lanes(from + 48, 64), apart);
    std::byte* const plane = to + done;
    store(plane, low64(low32(a, b), low32(c, d)));
    store(plane + stride, high64(low32(a, b), low32(c, d)));
    store(plane + 2 * stride, low64(high32(a, b), high32(c, d)));
    store(plane + 3 * stride, high64(high32(a, b), high32(c, d)));
  }
  return done;
}

inline std::size_t split8(std::byte* to, const std::byte* from, std::size_t count, std::size_t stride) {
  const Vector apart = every_lane(0x0B030A0209010800, 0x0F070E060D050C04);
  std::size_t done = 0;
  for (; done + kGroup <= count; done += kGroup, from += kGroup * 8) {
    Vector half[2][4];  // of the planes 2 i and 2 i + 1: the elements 0 to 7, and 8 to 15
    for (std::size_t h = 0; h < 2; ++h) {
      const std::byte* const at = from + 64 * h;
      const Vector a = permute(load_lanes(at, 128), apart);
      const Vector b = permute(load_lanes(at + 16, 128), apart);
      const Vector c = permute(load_lanes(at + 32, 128), apart);
      const Vector d = permute(load_lanes(at + 48, 128), apart);
      half[h][0] = low32(low16(a, b), low16(c, d));
      half[h][1] = high32(low16(a, b), low16(c, d));
      half[h][2] = low32(high16(a, b), high16(c, d));
      half[h][3] = high32(high16(a, b), high16(c, d));
    }
    for (std::size_t i = 0; i < 4; ++i) {
      store(to + 2 * i * stride + done, low64(half[0][i], half[1][i]));
      store(to + (2 * i + 1) * stride + done, high64(half[0][i], half[1][i]));
    }
  }
  return done;
}

inline std::size_t join2(std::byte* to, const std::byte* from, std::size_t count, std::size_t stride) {
  std::size_t done = 0;
  for (; done + kGroup <= count; done += kGroup, to += kGroup * 2) {
    const Vector a = load(from + done);
    const Vector b = load(from + stride + done);
    store_lanes(to, 32, low8(a, b));
    store_lanes(to + 16, 32, high8(a, b));
  }
  return done;
}

inline std::size_t join4(std::byte* to, const std::byte* from, std::size_t count, std::size_t stride) {
  std::size_t done = 0;
  for (; done + kGroup <= count; done += kGroup, to += kGroup * 4) {
    const std::byte* const plane = from + done;
    const Vector a = load(plane);
    const Vector b = load(plane + stride);
    const Vector c = load(plane + 2 * stride);
    const Vector d = load(plane + 3 * stride);
    store_lanes(to, 64, low16(low8(a, b), low8(c, d)));
    store_lanes(to + 16, 64, high16(low8(a, b), low8(c, d)));
    store_lanes(to + 32, 64, low16(high8(a, b), high8(c, d)));
    store_lanes(to + 48, 64, high16(high8(a, b), high8(c, d)));
  }
  return done;
}

inline std::size_t join8(std::byte* to, const std::byte* from, std::size_t count, std::size_t stride) {
  std::size_t done = 0;
  for (; done + kGroup <= count; done += kGroup, to += kGroup * 8) {
    Vector half[2][4];  // the lower and the upper four bytes of the elements 4 i to 4 i + 3
    for (std::size_t h = 0; h < 2; ++h) {
      const std::byte* const plane = from + 4 * h * stride + done;
      const Vector a = load(plane);
      const Vector b = load(plane + stride);
      const Vector c = load(plane + 2 * stride);
      const Vector d = load(plane + 3 * stride);
      half[h][0] = low16(low8(a, b), low8(c, d));
      half[h][1] = high16(low8(a, b), low8(c, d));
      half[h][2] = low16(high8(a, b), high8(c, d));
      half[h][3] = high16(high8(a, b), high8(c, d));
    }
    for (std::size_t i = 0; i < 4; ++i) {
      store_lanes(to + 32 * i, 128, low32(half[0][i], half[1][i]));
      store_lanes(to + 32 * i + 16, 128, high32(half[0][i], half[1][i]));
    }
  }
  return done;
}

// All of a line is loaded before anything of it is stored, so `to` may be either source.
inline void exclusive_or(std::byte* to, const std::byte* from, const std::byte* previous,
                         std::size_t nbytes) {
  constexpr std::size_t kWidth = 16 * kLanes;
  std::size_t at = 0;
  for (; at + 2 * kWidth <= nbytes; at += 2 * kWidth) {
    const Vector a = either(load(from + at), load(previous + at));
    const Vector b = either(load(from + at + kWidth), load(previous + at + kWidth));
    store(to + at, a);
    store(to + at + kWidth, b);
  }
  for (; at < nbytes; ++at) {
    to[at] = static_cast<std::byte>(static_cast<unsigned char>(from[at]) ^
                                    static_cast<unsigned char>(previous[at]));
  }
}
