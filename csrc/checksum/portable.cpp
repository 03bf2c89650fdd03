// Slicing by eight: eight table look-ups for eight bytes, on any machine.
#include <array>
#include <bit>
#include <cstring>

#include "checksum/kernel.h"
#include "checksum/polynomial.h"

namespace hpresil::crc32c_detail {
namespace {

constexpr auto kTables = [] {
  std::array<std::array<std::uint32_t, 256>, 8> tables{};
  for (std::uint32_t value = 0; value < 256; ++value) {
    std::uint32_t crc = value;
    for (int bit = 0; bit < 8; ++bit) {
      crc = times_x(crc);
    }
    tables[0][value] = crc;
  }
  for (std::size_t slice = 1; slice < 8; ++slice) {
    for (std::size_t value = 0; value < 256; ++value) {
      const std::uint32_t before = tables[slice - 1][value];
      tables[slice][value] = (before >> 8) ^ tables[0][before & 0xFF];
    }
  }
  return tables;
}();

std::uint32_t extend(std::uint32_t state, const std::byte* data, std::size_t nbytes) {
  if constexpr (std::endian::native == std::endian::little) {
    for (; nbytes >= 8; nbytes -= 8, data += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, data, 8);
      word ^= state;
      state = 0;
      for (unsigned i = 0; i < 8; ++i) {
        state ^= kTables[7 - i][(word >> (8 * i)) & 0xFF];
      }
    }
  }
  for (; nbytes > 0; --nbytes, ++data) {
    state = (state >> 8) ^ kTables[0][(state ^ std::to_integer<std::uint32_t>(*data)) & 0xFF];
  }
  return state;
}

std::uint32_t copy(std::uint32_t state, std::byte* to, const std::byte* from, std::size_t nbytes) {
  constexpr std::size_t kTile =
      std::size_t{16} * 1024;  // stays in the first-level cache between the two passes
  for (std::size_t done = 0; done < nbytes; done += kTile) {
    const std::size_t size = nbytes - done < kTile ? nbytes - done : kTile;
    std::memcpy(to + done, from + done, size);
    state = extend(state, from + done, size);
  }
  return state;
}

void stream(std::byte* to, const std::byte* from, std::size_t nbytes) {
  if (nbytes > 0) {
    std::memcpy(to, from, nbytes);
  }
}

}  // namespace

const Kernel kPortable{extend, copy, stream};

}  // namespace hpresil::crc32c_detail
