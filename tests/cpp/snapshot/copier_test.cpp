// Filling in the background, waiting, and giving up.
#include "snapshot/copier.h"

#include <gtest/gtest.h>

#include <chrono>

#include "base/clock.h"
#include "checksum/crc32c.h"
#include "memory/mapping.h"
#include "snapshot/arena.h"
#include "snapshot/priority.h"
#include "snapshot/small_frame.h"

namespace hpresil {
namespace {

constexpr std::int64_t kLong = 30'000'000'000;

struct alignas(4096) Memory {
  std::array<std::byte, SmallFrame::kBytes> bytes{};
};

// One tensor of `nbytes`, in a frame of its own.
struct LargeFrame {
  explicit LargeFrame(std::size_t nbytes)
      : source(nbytes, std::byte{1}),
        arena(create_arena("test", nbytes + 8192)),
        mapping(arena.fd.get(), arena.nbytes, true, false) {}

  Contents contents(std::int64_t version) {
    FrameHeader header = SmallFrame::header(version, 0);
    header.frame_bytes = 8192 + source.size();
    header.sums_bytes = 4;
    header.there = 1;
    header.sections = {Section{8192, source.size(), 1, 0},
                       {header.frame_bytes, 0, 0, 0},
                       {header.frame_bytes, 0, 0, 0},
                       {header.frame_bytes, 0, 0, 0}};
    return {mapping.data(), mapping.bytes(), header, {}, {0}, {{source.data(), 8192, source.size(), 0}}};
  }

  std::vector<std::byte> source;
  Arena arena;
  Mapping mapping;
};

TEST(Copier, SealsEveryVersionWithAnyNumberOfThreads) {
  for (const int threads : {0, 1, 3}) {
    Copier copier({threads, 1.0});
    Memory memory;
    for (std::int64_t version = 1; version <= 20; ++version) {
      const auto tensors = SmallFrame::tensors(version);
      copier.begin(SmallFrame::contents(memory.bytes.data(), version, tensors));
      const Filled filled = copier.wait(kLong);
      EXPECT_TRUE(filled.sealed);
      EXPECT_EQ(filled.nbytes, 2100U);
      EXPECT_TRUE(copier.idle());
      EXPECT_EQ(SmallFrame::version_in(memory.bytes.data()), version);
    }
  }
}

TEST(Copier, ChecksumsOfPartsAreThatOfTheWhole) {
  for (const std::size_t nbytes : {524287U, 524288U, 524289U, 3U * 524288U + 77U}) {
    LargeFrame large(nbytes);
    for (std::size_t i = 0; i < nbytes; ++i) {
      large.source[i] = static_cast<std::byte>(i * i >> 3);
    }
    Copier copier({1, 1.0});
    copier.begin(large.contents(4));
    ASSERT_TRUE(copier.wait(kLong).sealed);
    std::vector<std::byte> found(nbytes);
    const Taken taken{0, 8192, nbytes, found.data()};
    SealedFrame(large.mapping.data(), large.mapping.bytes()).copy({&taken, 1});
    EXPECT_EQ(found, large.source);
  }
}

TEST(Copier, IsDoneInTheBackgroundWithoutAnybodyWaiting) {
  LargeFrame large(std::size_t{64} << 10);  // small: its thread has what other processes leave of a core
  Copier copier({1, 1.0});
  copier.begin(large.contents(1));
  const std::int64_t end = monotonic_ns() + kLong;
  while (!copier.idle() && monotonic_ns() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const Filled filled = copier.wait(0);
  EXPECT_TRUE(filled.sealed);
  EXPECT_EQ(filled.helped, 0U);
}

TEST(Copier, WhoeverWaitsDoesNotWaitForTheBudget) {
  LargeFrame large(std::size_t{16} << 20);
  Copier copier({1, 0.001});  // a thousandth of a core: minutes
  copier.begin(large.contents(1));
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(copier.idle()) << "the budget is not kept";
  const std::int64_t begun = monotonic_ns();
  const Filled filled = copier.wait(kLong);
  EXPECT_TRUE(filled.sealed);
  EXPECT_GT(filled.helped, 0U);
  EXPECT_LT(monotonic_ns() - begun, 5'000'000'000);
}

TEST(Copier, GivenUpLeavesNoSealAndTakesTheNextFrame) {
  LargeFrame large(std::size_t{16} << 20);
  Copier copier({1, 0.001});
  copier.begin(large.contents(1));
  EXPECT_THROW(copier.begin(large.contents(2)), NativeError);
  copier.cancel();
  EXPECT_FALSE(copier.wait(kLong).sealed);
  EXPECT_TRUE(copier.idle());
  EXPECT_THROW(SealedFrame(large.mapping.data(), large.mapping.bytes()), NativeError);
  copier.begin(large.contents(3));
  EXPECT_TRUE(copier.wait(kLong).sealed);
  EXPECT_EQ(SealedFrame(large.mapping.data(), large.mapping.bytes()).header().version, 3);
}

TEST(Copier, EndsWhileItCopies) {
  LargeFrame large(std::size_t{16} << 20);
  {
    Copier copier({2, 0.01});
    copier.begin(large.contents(1));
  }
  EXPECT_THROW(SealedFrame(large.mapping.data(), large.mapping.bytes()), NativeError);
}

TEST(Copier, RefusesContentsThatDoNotFitAndTouchesNothing) {
  Memory memory;
  Copier copier({1, 1.0});
  const auto tensors = SmallFrame::tensors(1);
  copier.begin(SmallFrame::contents(memory.bytes.data(), 1, tensors));
  ASSERT_TRUE(copier.wait(kLong).sealed);
  Contents bad = SmallFrame::contents(memory.bytes.data(), 2, tensors);
  bad.tensors[0].offset = SmallFrame::kBytes;
  EXPECT_THROW(copier.begin(bad), NativeError);
  bad = SmallFrame::contents(memory.bytes.data(), 2, tensors);
  bad.capacity = 8192;
  EXPECT_THROW(copier.begin(bad), NativeError);
  bad = SmallFrame::contents(memory.bytes.data(), 2, tensors);
  bad.manifest.clear();
  EXPECT_THROW(copier.begin(bad), NativeError);
  EXPECT_EQ(SmallFrame::version_in(memory.bytes.data()), 1);
  EXPECT_THROW(Copier({1, 0.0}), NativeError);
  EXPECT_THROW(Copier({-1, 1.0}), NativeError);
}

TEST(Arena, IsSealedAndAsLargeAsAsked) {
  Arena arena = create_arena("test", 5000);
  EXPECT_GE(arena.nbytes, 5000U);
  EXPECT_EQ(bytes_of(arena.fd.get()), arena.nbytes);
  EXPECT_NE(seals_of(arena.fd.get()), 0);
  EXPECT_FALSE(arena.note.empty());
  Mapping mapping(arena.fd.get(), arena.nbytes, true, false);
  mapping.data()[17] = std::byte{5};
  fault_in(mapping.data(), mapping.bytes(), 2);
  EXPECT_EQ(mapping.data()[17], std::byte{5}) << "contents stay";
  EXPECT_EQ(mapping.data()[arena.nbytes - 1], std::byte{0});
}

}  // namespace
}  // namespace hpresil
