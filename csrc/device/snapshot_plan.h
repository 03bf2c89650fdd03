// What one device snapshot consists of: pure, and the same for a device and for a test without one.
//
// Copies go from device memory into a frame of host memory. One copy costs microseconds to submit whatever
// its size, so neighbours in the frame that are small are packed on the device first and travel together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "device/work_lists.h"

namespace hpresil {

constexpr std::size_t kSmallBytes = std::size_t{1} << 20;  // below it a tensor is packed
constexpr std::size_t kMostGapBytes = 64;                  // between neighbours: what alignment leaves

struct CopyItem {
  const std::byte* from;  // device memory
  std::byte* to;          // host memory
  std::uint64_t nbytes;

  friend bool operator==(const CopyItem&, const CopyItem&) = default;
};

// A piece of the staging memory that goes to the host in one copy.
struct StagedRun {
  std::uint64_t offset;  // in the staging memory, a multiple of 256
  std::byte* to;
  std::uint64_t nbytes;
};

// Invariants: chunks and runs cover exactly the items that are not direct; what a run holds between two items
// is zero; `blocks` holds the hash blocks of every item in the order of the items, `first_block[i]` is where
// those of item i begin.
struct SnapshotPlan {
  std::vector<GatherChunk> chunks;
  std::vector<StagedRun> runs;
  std::vector<CopyItem> direct;
  std::vector<HashBlock> blocks;
  std::vector<std::size_t> first_block;
  std::uint64_t staging_bytes = 0;
};

// With `gather` false every item is copied by itself. Items must not overlap in the frame.
SnapshotPlan plan_snapshot(std::span<const CopyItem> items, bool gather);

}  // namespace hpresil
