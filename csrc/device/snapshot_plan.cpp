#include "device/snapshot_plan.h"

#include <algorithm>

#include "checksum/block_hash.h"

namespace hpresil {
namespace {

constexpr std::uint64_t kStagingAlignment = 256;

bool follows(const CopyItem& before, const CopyItem& item) {
  const std::byte* const end = before.to + before.nbytes;
  return item.to >= end && item.to - end <= static_cast<std::ptrdiff_t>(kMostGapBytes);
}

// How many items from `begin` on are small neighbours.
std::size_t neighbours(std::span<const CopyItem> items, std::size_t begin) {
  std::size_t end = begin;
  while (end < items.size() && items[end].nbytes < kSmallBytes &&
         (end == begin || follows(items[end - 1], items[end]))) {
    ++end;
  }
  return end - begin;
}

void add_run(SnapshotPlan& plan, std::span<const CopyItem> run) {
  const std::uint64_t offset =
      (plan.staging_bytes + kStagingAlignment - 1) / kStagingAlignment * kStagingAlignment;
  const CopyItem& first = run.front();
  const std::uint64_t nbytes = run.back().to + run.back().nbytes - first.to;
  for (const CopyItem& item : run) {
    const std::uint64_t place = offset + (item.to - first.to);
    for (std::uint64_t at = 0; at < item.nbytes; at += kGatherChunkBytes) {
      plan.chunks.push_back(
          {item.from + at, place + at, std::min<std::uint64_t>(kGatherChunkBytes, item.nbytes - at)});
    }
  }
  plan.runs.push_back({offset, first.to, nbytes});
  plan.staging_bytes = offset + nbytes;
}

void add_blocks(SnapshotPlan& plan, const CopyItem& item) {
  plan.first_block.push_back(plan.blocks.size());
  for (std::uint64_t at = 0; at < item.nbytes; at += kHashBlockBytes) {
    plan.blocks.push_back({item.from + at, std::min<std::uint64_t>(kHashBlockBytes, item.nbytes - at)});
  }
}

}  // namespace

SnapshotPlan plan_snapshot(std::span<const CopyItem> items, bool gather) {
  SnapshotPlan plan;
  std::vector<CopyItem> there;
  for (const CopyItem& item : items) {
    add_blocks(plan, item);
    if (item.nbytes > 0) {
      there.push_back(item);
    }
  }
  for (std::size_t at = 0; at < there.size();) {
    const std::size_t count = gather ? neighbours(there, at) : 0;
    if (count > 1) {
      add_run(plan, std::span(there).subspan(at, count));
      at += count;
    } else {
      plan.direct.push_back(there[at]);
      ++at;
    }
  }
  return plan;
}

}  // namespace hpresil
