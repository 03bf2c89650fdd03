// Delta and byte planes against their definitions, at every level, size and address, and back.
#include <gtest/gtest.h>

#include <random>

#include "base/error.h"
#include "codec/shuffle.h"
#include "codec/xor.h"

namespace hpresil {
namespace {

using Bytes = std::vector<std::byte>;

Bytes random_bytes(std::size_t nbytes, unsigned seed) {
  std::mt19937 random(seed);
  Bytes made(nbytes);
  for (auto& byte : made) {
    byte = static_cast<std::byte>(random());
  }
  return made;
}

Bytes planes_of(const Bytes& data, std::size_t size) {
  Bytes planes;
  const std::size_t count = data.size() / size;
  for (std::size_t plane = 0; plane < size; ++plane) {
    for (std::size_t i = 0; i < count; ++i) {
      planes.push_back(data[i * size + plane]);
    }
  }
  planes.insert(planes.end(), data.begin() + count * size, data.end());
  return planes;
}

TEST(Shuffle, IsTheDefinitionAndComesBack) {
  for (const CpuLevel level : runnable_cpu_levels()) {
    for (const std::size_t size : {1UL, 2UL, 4UL, 8UL}) {
      for (const std::size_t nbytes : {0UL, 1UL, 7UL, 8UL, 127UL, 128UL, 256UL, 257UL, 4099UL, 10'000UL}) {
        const Bytes data = random_bytes(nbytes, 3);
        Bytes planes(nbytes);
        Bytes back(nbytes);
        shuffle(planes.data(), data.data(), nbytes, size, level);
        EXPECT_EQ(planes, planes_of(data, size)) << name_of(level) << " " << size << " " << nbytes;
        unshuffle(back.data(), planes.data(), nbytes, size, level);
        EXPECT_EQ(back, data) << name_of(level) << " " << size << " " << nbytes;
      }
    }
  }
}

TEST(Shuffle, WorksAtAnyAddress) {
  const Bytes data = random_bytes(5000, 4);
  for (const std::size_t size : {2UL, 4UL, 8UL}) {
    Bytes planes(5010);
    Bytes back(5010);
    shuffle(planes.data() + 3, data.data() + 1, 4999, size, cpu_level());
    unshuffle(back.data() + 5, planes.data() + 3, 4999, size, cpu_level());
    EXPECT_TRUE(std::equal(data.begin() + 1, data.end(), back.begin() + 5));
  }
}

TEST(Shuffle, RefusesWhatItCannotDo) {
  Bytes data(100);
  EXPECT_THROW(shuffle(data.data(), data.data(), 100, 4, cpu_level()), NativeError);
  EXPECT_THROW(unshuffle(data.data() + 10, data.data(), 50, 4, cpu_level()), NativeError);
  EXPECT_THROW(shuffle(data.data(), data.data() + 50, 50, 3, cpu_level()), NativeError);
  EXPECT_THROW(shuffle(data.data(), data.data() + 50, 50, 0, cpu_level()), NativeError);
}

TEST(XorDelta, IsItsOwnInverseAtEveryLevelSizeAndAddress) {
  for (const CpuLevel level : runnable_cpu_levels()) {
    for (const std::size_t nbytes : {0UL, 1UL, 63UL, 64UL, 65UL, 1000UL, (2UL << 20) + 3}) {
      const Bytes data = random_bytes(nbytes + 1, 5);
      const Bytes before = random_bytes(nbytes + 2, 6);
      Bytes delta(nbytes);
      xor_delta(delta.data(), data.data() + 1, before.data() + 2, nbytes, 2, level);
      for (std::size_t i = 0; i < nbytes; ++i) {
        ASSERT_EQ(delta[i], data[i + 1] ^ before[i + 2]) << i;
      }
      xor_delta(delta.data(), delta.data(), before.data() + 2, nbytes, 1, level);
      EXPECT_TRUE(std::equal(delta.begin(), delta.end(), data.begin() + 1));
    }
  }
}

TEST(XorDelta, MayReplaceEitherSource) {
  const Bytes data = random_bytes(3000, 7);
  const Bytes before = random_bytes(3000, 8);
  Bytes expected(3000);
  xor_delta(expected.data(), data.data(), before.data(), 3000, 1, CpuLevel::portable);
  for (const CpuLevel level : runnable_cpu_levels()) {
    Bytes first = data;
    xor_delta(first.data(), first.data(), before.data(), 3000, 1, level);
    EXPECT_EQ(first, expected);
    Bytes second = before;
    xor_delta(second.data(), data.data(), second.data(), 3000, 1, level);
    EXPECT_EQ(second, expected);
  }
}

TEST(XorDelta, RefusesAPartialOverlap) {
  Bytes data(100);
  EXPECT_THROW(xor_delta(data.data() + 1, data.data(), data.data(), 50, 1, cpu_level()), NativeError);
  EXPECT_THROW(xor_delta(data.data(), data.data() + 50, data.data() + 1, 50, 1, cpu_level()), NativeError);
  EXPECT_THROW(xor_delta(nullptr, nullptr, nullptr, 0, 0, cpu_level()), NativeError);
}

}  // namespace
}  // namespace hpresil
