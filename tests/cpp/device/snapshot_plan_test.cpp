// Which tensors travel together, and that each byte of each is covered exactly once.
#include "device/snapshot_plan.h"

#include <gtest/gtest.h>

#include <map>

#include "checksum/block_hash.h"

namespace hpresil {
namespace {

std::byte* at(std::uintptr_t address) { return reinterpret_cast<std::byte*>(address); }

std::vector<CopyItem> laid_out(const std::vector<std::uint64_t>& sizes, std::uint64_t gap = 0) {
  std::vector<CopyItem> items;
  std::uintptr_t from = std::uintptr_t{1} << 40;
  std::uintptr_t to = std::uintptr_t{1} << 30;
  for (const std::uint64_t nbytes : sizes) {
    items.push_back({at(from), at(to), nbytes});
    from += nbytes + 4096;
    to += nbytes + gap;
  }
  return items;
}

// From which device byte each host byte comes, as pieces.
std::map<std::byte*, std::pair<const std::byte*, std::uint64_t>> covered(const SnapshotPlan& plan) {
  std::map<std::byte*, std::pair<const std::byte*, std::uint64_t>> pieces;
  for (const GatherChunk& chunk : plan.chunks) {
    for (const StagedRun& run : plan.runs) {
      if (chunk.offset >= run.offset && chunk.offset + chunk.nbytes <= run.offset + run.nbytes) {
        EXPECT_TRUE(
            pieces.emplace(run.to + (chunk.offset - run.offset), std::pair(chunk.from, chunk.nbytes)).second);
      }
    }
  }
  for (const CopyItem& item : plan.direct) {
    EXPECT_TRUE(pieces.emplace(item.to, std::pair(item.from, item.nbytes)).second);
  }
  return pieces;
}

void expect_covers(const SnapshotPlan& plan, const std::vector<CopyItem>& items) {
  auto pieces = covered(plan);
  for (const CopyItem& item : items) {
    for (std::uint64_t done = 0; done < item.nbytes;) {
      const auto found = pieces.find(item.to + done);
      ASSERT_NE(found, pieces.end());
      EXPECT_EQ(found->second.first, item.from + done);
      done += found->second.second;
      pieces.erase(found);
    }
  }
  EXPECT_TRUE(pieces.empty()) << "more is copied than was asked for";
}

TEST(SnapshotPlan, SmallNeighboursTravelTogether) {
  const auto items = laid_out({100, 200, 40000, 5});
  const SnapshotPlan plan = plan_snapshot(items, true);
  EXPECT_EQ(plan.runs.size(), 1U);
  EXPECT_EQ(plan.direct.size(), 0U);
  EXPECT_EQ(plan.runs[0].nbytes, 40305U);
  expect_covers(plan, items);
}

TEST(SnapshotPlan, ALargeOneParts) {
  const auto items = laid_out({100, 200, kSmallBytes, 300, 400, kSmallBytes - 1, kSmallBytes * 3, 9});
  const SnapshotPlan plan = plan_snapshot(items, true);
  EXPECT_EQ(plan.runs.size(), 2U);
  EXPECT_EQ(plan.direct.size(), 3U) << "two that are large, and one without a neighbour";
  expect_covers(plan, items);
}

TEST(SnapshotPlan, AGapBeyondAlignmentParts) {
  EXPECT_EQ(plan_snapshot(laid_out({8, 8}, kMostGapBytes), true).runs.size(), 1U);
  EXPECT_EQ(plan_snapshot(laid_out({8, 8}, kMostGapBytes + 1), true).runs.size(), 0U);
}

TEST(SnapshotPlan, AnOrderThatIsNotTheFramesParts) {
  auto items = laid_out({8, 8, 8});
  std::swap(items[0], items[2]);
  const SnapshotPlan plan = plan_snapshot(items, true);
  EXPECT_EQ(plan.direct.size(), 3U);
  expect_covers(plan, items);
}

TEST(SnapshotPlan, WithoutPackingEachIsCopiedByItself) {
  const auto items = laid_out({100, 0, 200, 3 << 20});
  const SnapshotPlan plan = plan_snapshot(items, false);
  EXPECT_EQ(plan.direct.size(), 3U);
  EXPECT_EQ(plan.staging_bytes, 0U);
  expect_covers(plan, items);
}

TEST(SnapshotPlan, HashesTheBlocksOfEachTensorByItself) {
  const SnapshotPlan plan = plan_snapshot(laid_out({0, 1, kHashBlockBytes, kHashBlockBytes + 1}), true);
  EXPECT_EQ(plan.first_block, (std::vector<std::size_t>{0, 0, 1, 2}));
  ASSERT_EQ(plan.blocks.size(), 4U);
  EXPECT_EQ(plan.blocks[3].nbytes, 1U);
}

TEST(SnapshotPlan, OfNothingIsEmpty) {
  const SnapshotPlan plan = plan_snapshot({}, true);
  EXPECT_TRUE(plan.chunks.empty() && plan.runs.empty() && plan.direct.empty() && plan.blocks.empty());
}

}  // namespace
}  // namespace hpresil
