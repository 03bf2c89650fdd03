// Which source is asked: a chain goes on to the next, stripes do without, progress forgives breaks.
#include "transfer/sources.h"

#include <gtest/gtest.h>

namespace hpresil::transfer {
namespace {

TEST(Sources, OfAChainAreAskedOneAfterTheOther) {
  Sources chain(3, 1);
  EXPECT_EQ(chain.in_slot(0), 0U);
  chain.give_up(0);
  EXPECT_EQ(chain.in_slot(0), 1U);
  chain.give_up(1);
  EXPECT_EQ(chain.in_slot(0), 2U);
  chain.give_up(2);
  EXPECT_FALSE(chain.in_slot(0));
}

TEST(Sources, InReserveReplaceOnlyWhatFailed) {
  Sources stripes(3, 2);
  stripes.give_up(0);
  EXPECT_EQ(stripes.in_slot(0), 2U);
  EXPECT_EQ(stripes.in_slot(1), 1U);
  stripes.give_up(1);
  EXPECT_FALSE(stripes.in_slot(1));
  EXPECT_EQ(stripes.in_slot(0), 2U);
}

TEST(Sources, AreGivenUpAfterBreaksInARowWithoutProgress) {
  Sources one(1, 1);
  for (int i = 1; i < Sources::kTries; ++i) {
    EXPECT_EQ(one.broke(0, 0, 0), i);
  }
  EXPECT_EQ(one.in_slot(0), 0U);
  (void)one.broke(0, 0, 0);
  EXPECT_FALSE(one.in_slot(0));
}

TEST(Sources, AreKeptAsLongAsSomethingArrives) {
  Sources one(1, 1);
  for (std::uint64_t arrived = 1; arrived < 100; ++arrived) {
    EXPECT_EQ(one.broke(0, 0, arrived), 1);
  }
  EXPECT_EQ(one.in_slot(0), 0U);
}

TEST(Sources, AreNotGivenUpWhenAllConnectionsBreakOnce) {
  Sources one(1, 1);
  for (int worker = 0; worker < 16; ++worker) {
    EXPECT_EQ(one.broke(0, worker, 0), 1);
  }
  EXPECT_EQ(one.in_slot(0), 0U);
}

TEST(Sources, ThatAreFullAreReplacedAndTheLastOneIsAskedAgain) {
  Sources chain(2, 1);
  chain.full(0);
  EXPECT_EQ(chain.in_slot(0), 1U);
  for (int i = 0; i < 10 * Sources::kTries; ++i) {
    chain.full(1);
  }
  EXPECT_EQ(chain.in_slot(0), 1U);
}

TEST(Routes, AreRankedByTheirSpeedAndNearTiesByTheirOrder) {
  using Order = std::vector<std::size_t>;
  EXPECT_EQ(ranked({1, 3, 2}), (Order{1, 2, 0}));
  EXPECT_EQ(ranked({95, 100, 50}), (Order{0, 1, 2}));
  EXPECT_EQ(ranked({0, 0, 7}), (Order{2, 0, 1}));
  EXPECT_EQ(ranked({0, 0}), (Order{0, 1}));
  EXPECT_EQ(ranked({}), Order{});
}

}  // namespace
}  // namespace hpresil::transfer
