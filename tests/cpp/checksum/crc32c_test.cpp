// CRC-32C against its published values, at every level, offset and number of threads.
#include "checksum/crc32c.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string_view>

namespace hpresil {
namespace {

const std::byte* bytes(const char* text) { return reinterpret_cast<const std::byte*>(text); }

std::vector<std::byte> random_bytes(std::size_t nbytes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> made(nbytes);
  for (auto& byte : made) {
    byte = static_cast<std::byte>(random());
  }
  return made;
}

// Bit by bit, from the definition.
std::uint32_t reference(std::span<const std::byte> data) {
  std::uint32_t crc = 0xFFFFFFFFU;
  for (const std::byte byte : data) {
    crc ^= std::to_integer<std::uint32_t>(byte);
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc >> 1) ^ ((crc & 1U) != 0U ? 0x82F63B78U : 0U);
    }
  }
  return ~crc;
}

TEST(Crc32c, HasTheValueOfRfc3720AtEveryLevel) {
  for (const CpuLevel level : runnable_cpu_levels()) {
    EXPECT_EQ(crc32c(bytes("123456789"), 9, 0, level), 0xE3069283U) << name_of(level);
    EXPECT_EQ(crc32c(nullptr, 0, 0, level), 0U) << name_of(level);
  }
}

TEST(Crc32c, EqualsTheDefinitionAtEveryOffsetAndLength) {
  const auto data = random_bytes(5000, 1);
  for (const CpuLevel level : runnable_cpu_levels()) {
    for (std::size_t begin = 0; begin < 9; ++begin) {
      for (const std::size_t nbytes : {1UL, 7UL, 8UL, 63UL, 1024UL, 4096UL}) {
        const std::span<const std::byte> part(data.data() + begin, nbytes);
        EXPECT_EQ(crc32c(part.data(), nbytes, 0, level), reference(part)) << begin << " " << nbytes;
      }
    }
  }
}

TEST(Crc32c, OfTwoPiecesIsJoinedFromTheirOwn) {
  const auto data = random_bytes(3000, 2);
  for (const std::size_t cut : {0UL, 1UL, 1500UL, 3000UL}) {
    const auto first = crc32c(data.data(), cut, 0, cpu_level());
    const auto second = crc32c(data.data() + cut, data.size() - cut, 0, cpu_level());
    EXPECT_EQ(crc32c_join(first, second, data.size() - cut), reference(data));
    EXPECT_EQ(crc32c(data.data() + cut, data.size() - cut, first, cpu_level()), reference(data));
  }
}

TEST(CopyCrc32c, CopiesEveryPieceOnAnyNumberOfThreads) {
  const auto from = random_bytes(3 << 20, 3);
  for (const int threads : {1, 2, 5}) {
    std::vector<std::byte> to(from.size());
    std::vector<Piece> pieces;
    std::size_t begin = 0;
    for (const std::size_t nbytes : {0UL, 1UL, 4095UL, 1UL << 20, 0UL, 12345UL}) {
      pieces.push_back({to.data() + begin, from.data() + begin, nbytes});
      begin += nbytes;
    }
    pieces.push_back({to.data() + begin, from.data() + begin, from.size() - begin});
    const auto sums = copy_crc32c(pieces, threads, cpu_level());
    EXPECT_EQ(to, from) << threads;
    for (std::size_t i = 0; i < pieces.size(); ++i) {
      EXPECT_EQ(sums[i], crc32c(pieces[i].from, pieces[i].nbytes, 0, CpuLevel::portable)) << i;
    }
  }
}

}  // namespace
}  // namespace hpresil
