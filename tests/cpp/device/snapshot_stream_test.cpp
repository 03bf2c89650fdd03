// The device snapshot against a scripted CUDA: what it copies, what it holds back, what it gives back.
#include "device/snapshot_stream.h"

#include <gtest/gtest.h>

#include "device/snapshot_world.h"

namespace hpresil {
namespace {

using testing::kSizes;
using testing::kTraining;
using testing::random_bytes;
using World = testing::SnapshotWorld;

TEST(SnapshotStream, CopiesEverythingAndHashesEveryBlock) {
  World world(kSizes);
  SnapshotStream stream(world.cuda, 0);
  ASSERT_TRUE(stream.register_memory(world.frame.data(), world.frame.size()));
  stream.set_copies(world.items);
  EXPECT_TRUE(stream.uses_graph());
  world.snapshot(stream);
  EXPECT_TRUE(stream.complete());
  EXPECT_TRUE(world.copied());
  EXPECT_TRUE(stream.notes().empty());
  std::vector<std::uint64_t> expected;
  for (const auto& tensor : world.tensors) {
    for (const std::uint64_t hash : block_hashes(tensor.data(), tensor.size(), 1, CpuLevel::portable)) {
      expected.push_back(hash);
    }
  }
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), stream.hashes().begin(), stream.hashes().end()));
  EXPECT_EQ(world.frame.back(), std::byte{0x55}) << "something was written behind the last tensor";
}

TEST(SnapshotStream, SubmitsFarFewerCopiesThanTensors) {
  World world(std::vector<std::size_t>(500, 1000));
  SnapshotStream stream(world.cuda, 0);
  stream.set_copies(world.items);
  const int before = world.cuda.count("copy");
  world.snapshot(stream);
  EXPECT_EQ(world.cuda.count("copy") - before, 2) << "one for all tensors, one for the hashes";
  EXPECT_TRUE(world.copied());
}

TEST(SnapshotStream, CapturesOnceUntilAnAddressChanges) {
  World world(kSizes);
  SnapshotStream stream(world.cuda, 0);
  stream.register_memory(world.frame.data(), world.frame.size());
  for (int i = 0; i < 3; ++i) {
    stream.set_copies(world.items);
    world.snapshot(stream);
  }
  EXPECT_EQ(stream.captures(), 1U);
  world.tensors[0] = random_bytes(100, 77);
  world.items[0].from = world.tensors[0].data();
  stream.set_copies(world.items);
  world.snapshot(stream);
  EXPECT_EQ(stream.captures(), 2U);
  EXPECT_TRUE(world.copied());
}

TEST(SnapshotStream, WaitsForWhatTheTrainingStreamHasQueued) {
  World world({1000});
  SnapshotStream stream(world.cuda, 0);
  stream.set_copies(world.items);
  world.cuda.train(kTraining, [&] { world.tensors[0][0] = std::byte{9}; });
  stream.begin(kTraining);
  EXPECT_FALSE(stream.wait(0));
  world.cuda.run();
  EXPECT_TRUE(stream.wait(0));
  EXPECT_EQ(world.frame[0], std::byte{9});
}

TEST(SnapshotStream, HoldsTheOptimizerBackUntilTheCopyIsDone) {
  World world({1000});
  SnapshotStream stream(world.cuda, 0);
  stream.set_copies(world.items);
  const auto before = world.tensors[0];
  // Ran ahead of the copy, the next optimizer step would be in the frame.
  const auto optimizer = reinterpret_cast<CudaApi::Stream>(0);
  stream.begin(kTraining);
  stream.gate(optimizer);
  world.cuda.train(optimizer, [&] { world.tensors[0].assign(1000, std::byte{0}); });
  world.cuda.run();
  EXPECT_TRUE(stream.wait(0));
  EXPECT_TRUE(std::equal(before.begin(), before.end(), world.frame.begin()));
  EXPECT_EQ(world.tensors[0][0], std::byte{0}) << "the optimizer never ran";
}

TEST(SnapshotStream, AGateBeforeTheFirstCopyHoldsNothing) {
  World world({10});
  SnapshotStream stream(world.cuda, 0);
  stream.gate(kTraining);
  EXPECT_EQ(world.cuda.count("wait_event"), 0);
}

TEST(SnapshotStream, ChangesNothingWhileACopyIsUnderWay) {
  World world({1000});
  SnapshotStream stream(world.cuda, 0);
  stream.set_copies(world.items);
  stream.begin(kTraining);
  EXPECT_THROW(stream.begin(kTraining), NativeError);
  EXPECT_THROW(stream.set_copies({}), NativeError);
  EXPECT_THROW(stream.unregister_memory(world.frame.data()), NativeError);
  EXPECT_THROW((void)stream.hashes(), NativeError);
  world.cuda.run();
  EXPECT_TRUE(stream.wait(0));
  EXPECT_EQ(stream.hashes().size(), 1U);
}

TEST(SnapshotStream, NothingToCopyIsAnError) {
  World world({});
  SnapshotStream stream(world.cuda, 0);
  EXPECT_THROW(stream.begin(kTraining), NativeError);
}

TEST(SnapshotStream, UnregisteredMemoryIsNoLongerCaptured) {
  World world(kSizes);
  SnapshotStream stream(world.cuda, 0);
  stream.register_memory(world.frame.data(), world.frame.size());
  stream.set_copies(world.items);
  stream.unregister_memory(world.frame.data());
  EXPECT_THROW(stream.unregister_memory(world.frame.data()), NativeError);
  EXPECT_THROW(stream.begin(kTraining), NativeError) << "the list is forgotten with the memory";
  stream.set_copies(world.items);
  EXPECT_FALSE(stream.uses_graph());
}

TEST(SnapshotStream, AWaitEndsAtItsDeadline) {
  World world({1000});
  SnapshotStream stream(world.cuda, 0);
  stream.set_copies(world.items);
  stream.begin(kTraining);
  EXPECT_FALSE(stream.wait(0.001));
  EXPECT_FALSE(stream.complete());
  world.cuda.run();
}

TEST(SnapshotStream, WorksOnItsDeviceAndLeavesTheCallersCurrent) {
  World world({1000});
  world.cuda.set_device(3);
  SnapshotStream stream(world.cuda, 1);
  stream.set_copies(world.items);
  EXPECT_EQ(world.cuda.current_device(), 3);
}

TEST(SnapshotStream, ItsEndWaitsForACopyThatIsUnderWay) {
  World world({1000});
  world.cuda.prompt = true;
  {
    SnapshotStream stream(world.cuda, 0);
    stream.set_copies(world.items);
    stream.begin(kTraining);
  }
  EXPECT_TRUE(world.copied());
  EXPECT_EQ(world.cuda.things_held(), 0U);
}

TEST(SnapshotStream, GivesEverythingBack) {
  World world(kSizes);
  {
    SnapshotStream stream(world.cuda, 0);
    stream.register_memory(world.frame.data(), world.frame.size());
    stream.set_copies(world.items);
    world.snapshot(stream);
    EXPECT_GT(world.cuda.things_held(), 0U);
  }
  EXPECT_EQ(world.cuda.things_held(), 0U);
  world.cuda.fail_next("create_event", CudaFault::failed, 1);
  EXPECT_THROW(SnapshotStream(world.cuda, 0), CudaError);
  EXPECT_EQ(world.cuda.things_held(), 0U) << "what a constructor took before it failed";
}

}  // namespace
}  // namespace hpresil
