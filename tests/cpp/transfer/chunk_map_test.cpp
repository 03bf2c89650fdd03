// The bookkeeping of a fetch: every chunk once, from its taker's hands, and nothing lost when a taker stops.
#include "transfer/chunk_map.h"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "base/error.h"

namespace hpresil::transfer {
namespace {

TEST(Grid, CoversTheFrameWithAShorterEnd) {
  for (const std::uint64_t bytes : {1ULL, 4095ULL, 4096ULL, 4097ULL, 8192ULL, 100'000ULL}) {
    const Grid grid = {bytes, 4096};
    std::uint64_t next = 0;
    for (std::size_t i = 0; i < grid.count(); ++i) {
      const Chunk chunk = grid.at(i);
      EXPECT_EQ(chunk.offset, next);
      EXPECT_EQ(grid.index_of(chunk.offset, chunk.nbytes), i);
      next += chunk.nbytes;
    }
    EXPECT_EQ(next, bytes);
  }
}

TEST(Grid, KnowsNoRangeThatIsNoChunk) {
  const Grid grid = {10'000, 4096};
  EXPECT_FALSE(grid.index_of(1, 4096));
  EXPECT_FALSE(grid.index_of(0, 4095));
  EXPECT_FALSE(grid.index_of(8192, 4096)) << "the last one is shorter";
  EXPECT_FALSE(grid.index_of(12'288, 4096)) << "behind the end";
  EXPECT_FALSE(grid.index_of(~std::uint64_t{4095}, 4096)) << "no offset runs over";
}

TEST(ChunkMap, HandsOutEachChunkOnceAndFirstThingsFirst) {
  ChunkMap map({10'000, 4096}, {});
  EXPECT_EQ(map.take(0)->index, 0U);
  EXPECT_EQ(map.take(1)->index, 1U);
  EXPECT_EQ(map.take(0)->index, 2U);
  EXPECT_FALSE(map.take(0));
  EXPECT_FALSE(map.any_missing());
  EXPECT_FALSE(map.complete());
}

TEST(ChunkMap, TakesAChunkOnlyFromTheHandsOfItsTaker) {
  ChunkMap map({10'000, 4096}, {});
  (void)map.take(0);
  EXPECT_FALSE(map.arrived(0, 1));
  EXPECT_FALSE(map.arrived(1, 0));
  EXPECT_FALSE(map.arrived(9, 0));
  EXPECT_TRUE(map.arrived(0, 0));
  EXPECT_FALSE(map.arrived(0, 0)) << "twice";
  EXPECT_EQ(map.here(), 1U);
}

TEST(ChunkMap, GivesBackWhatATakerHadNotReceived) {
  ChunkMap map({20'000, 4096}, {});
  for (int i = 0; i < 4; ++i) {
    (void)map.take(0);
  }
  EXPECT_TRUE(map.arrived(2, 0));
  EXPECT_EQ(map.give_back(0), 3U);
  EXPECT_EQ(map.take(1)->index, 0U);
  EXPECT_EQ(map.take(1)->index, 1U);
  EXPECT_EQ(map.take(1)->index, 3U) << "what is here is not asked for again";
}

TEST(ChunkMap, BeginsWithWhatIsHere) {
  ChunkMap map({10'000, 4096}, {1, 0, 1});
  EXPECT_EQ(map.take(0)->index, 1U);
  EXPECT_TRUE(map.arrived(1, 0));
  EXPECT_TRUE(map.complete());
  EXPECT_THROW(ChunkMap({10'000, 4096}, {1}), NativeError);
}

TEST(ChunkMap, EndsCompleteUnderAnyOrderOfBreaks) {
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    ChunkMap map({1 + random() % 200'000, 4096}, {});
    std::set<std::pair<int, std::size_t>> held;
    std::size_t steps = 0;
    while (!map.complete()) {
      ASSERT_LT(++steps, 100'000U);
      const int taker = static_cast<int>(random() % 4);
      if (random() % 8 == 0) {
        (void)map.give_back(taker);
        std::erase_if(held, [&](const auto& each) { return each.first == taker; });
      } else if (random() % 2 == 0) {
        if (const auto chunk = map.take(taker)) {
          for (const auto& [other, index] : held) {
            EXPECT_NE(index, chunk->index) << "two takers hold one chunk";
          }
          held.insert({taker, chunk->index});
        }
      } else if (!held.empty()) {
        const auto [holder, index] = *held.begin();
        EXPECT_TRUE(map.arrived(index, holder));
        held.erase(held.begin());
      }
    }
    EXPECT_EQ(map.which(), std::vector<std::uint8_t>(map.grid().count(), 1));
  }
}

}  // namespace
}  // namespace hpresil::transfer
