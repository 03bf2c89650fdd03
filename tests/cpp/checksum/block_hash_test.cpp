// The block hash: equal at every level, address and number of threads.
#include "checksum/block_hash.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "base/error.h"

namespace hpresil {
namespace {

std::vector<std::byte> random_bytes(std::size_t nbytes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> made(nbytes);
  for (auto& byte : made) {
    byte = static_cast<std::byte>(random());
  }
  return made;
}

TEST(BlockHash, HasAFixedValue) {
  const auto* const data = reinterpret_cast<const std::byte*>("123456789");
  for (const CpuLevel level : runnable_cpu_levels()) {
    EXPECT_EQ(block_hash(data, 9, level), 0xC3D399B1AEA79B2FU) << name_of(level);
  }
}

TEST(BlockHash, IsTheSameAtEveryLevelSizeAndAddress) {
  const auto data = random_bytes(40'000, 1);
  for (const std::size_t nbytes : {0UL, 1UL, 7UL, 255UL, 256UL, 257UL, 16383UL, 16384UL, 16385UL, 39'000UL}) {
    for (const std::size_t offset : {0UL, 1UL, 4UL, 63UL}) {
      // A copy that ends where its memory does: reading behind it would be noticed.
      const std::vector<std::byte> part(data.begin() + offset, data.begin() + offset + nbytes);
      const std::uint64_t expected = block_hash(part.data(), nbytes, CpuLevel::portable);
      for (const CpuLevel level : runnable_cpu_levels()) {
        EXPECT_EQ(block_hash(part.data(), nbytes, level), expected) << name_of(level) << " " << nbytes;
        EXPECT_EQ(block_hash(data.data() + offset, nbytes, level), expected)
            << name_of(level) << " " << nbytes;
      }
    }
  }
}

TEST(BlockHash, OfSeveralBlocksIsThatOfEach) {
  const auto data = random_bytes(2 * kHashBlockBytes + 5, 2);
  for (const int threads : {1, 2, 5}) {
    const auto found = block_hashes(data.data(), data.size(), threads, cpu_level());
    ASSERT_EQ(found.size(), 3U);
    for (std::size_t i = 0; i < 3; ++i) {
      const std::size_t at = i * kHashBlockBytes;
      const std::size_t nbytes = std::min(kHashBlockBytes, data.size() - at);
      EXPECT_EQ(found[i], block_hash(data.data() + at, nbytes, CpuLevel::portable));
    }
  }
  EXPECT_TRUE(block_hashes(nullptr, 0, 1, cpu_level()).empty());
}

TEST(BlockHash, BadArgumentsAreRefused) {
  EXPECT_THROW((void)block_hash(nullptr, kHashBlockBytes + 1, cpu_level()), NativeError);
  EXPECT_THROW((void)block_hashes(nullptr, 0, 0, cpu_level()), NativeError);
}

}  // namespace
}  // namespace hpresil
