// The device snapshot against a scripted CUDA: what it copies, what it holds back, and what it does after
// errors.
#include "device/snapshot_stream.h"

#include <gtest/gtest.h>

#include <random>

#include "device/fake_cuda.h"

namespace hpresil {
namespace {

using testing::FakeCuda;

const auto kTraining = reinterpret_cast<CudaApi::Stream>(1);

std::vector<std::byte> random_bytes(std::size_t nbytes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> made(nbytes);
  for (auto& byte : made) {
    byte = static_cast<std::byte>(random());
  }
  return made;
}

// Tensors on the "device", a frame they are copied into, and the list that says where each goes.
struct World {
  explicit World(const std::vector<std::size_t>& sizes) {
    std::size_t at = 0;
    for (const std::size_t nbytes : sizes) {
      tensors.push_back(random_bytes(nbytes, static_cast<unsigned>(tensors.size())));
      offsets.push_back(at);
      at = (at + nbytes + 63) / 64 * 64;
    }
    frame.assign(at + 64, std::byte{0x55});
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      items.push_back({tensors[i].data(), frame.data() + offsets[i], tensors[i].size()});
    }
  }
  bool copied() const {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (!std::equal(tensors[i].begin(), tensors[i].end(), frame.begin() + offsets[i])) {
        return false;
      }
    }
    return true;
  }
  // One snapshot from beginning to end.
  void snapshot(SnapshotStream& stream) {
    stream.begin(kTraining);
    cuda.run();
    ASSERT_TRUE(stream.wait(5));
  }

  FakeCuda cuda;
  std::vector<std::vector<std::byte>> tensors;
  std::vector<std::size_t> offsets;
  std::vector<std::byte> frame;
  std::vector<CopyItem> items;
};

const std::vector<std::size_t> kSizes = {100, 4, 65536, 0, 3 << 20, 1, 40000, (1 << 20) + 5, 7};

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

TEST(SnapshotStream, WithoutRoomToPackEachTensorIsCopiedByItself) {
  World world(kSizes);
  SnapshotStream stream(world.cuda, 0);
  stream.register_memory(world.frame.data(), world.frame.size());
  world.cuda.fail_next("allocate", CudaFault::out_of_memory);
  stream.set_copies(world.items);
  world.snapshot(stream);
  EXPECT_TRUE(world.copied());
  ASSERT_EQ(stream.notes().size(), 1U);
  EXPECT_NE(stream.notes()[0].find("pack"), std::string::npos);
}

TEST(SnapshotStream, WithoutRoomForItsListsItSaysSoAndCanBeTriedAgain) {
  World world(kSizes);
  SnapshotStream stream(world.cuda, 0);
  world.cuda.fail_next("allocate", CudaFault::out_of_memory, 1);
  EXPECT_THROW(stream.set_copies(world.items), CudaError);
  EXPECT_THROW(stream.begin(kTraining), NativeError) << "half a list must not be copied";
  stream.set_copies(world.items);
  world.snapshot(stream);
  EXPECT_TRUE(world.copied());
}

TEST(SnapshotStream, ACaptureThatIsInvalidatedOnceIsMadeAgain) {
  for (const char* const call : {"begin_capture", "launch", "copy", "end_capture"}) {
    World world(kSizes);
    SnapshotStream stream(world.cuda, 0);
    stream.register_memory(world.frame.data(), world.frame.size());
    const int lists = std::string(call) == "copy" ? 2 : 0;  // these come before the capture
    world.cuda.fail_next(call, CudaFault::capture, lists);
    stream.set_copies(world.items);
    EXPECT_TRUE(stream.uses_graph()) << call;
    EXPECT_EQ(stream.captures(), 1U) << call;
    world.snapshot(stream);
    EXPECT_TRUE(world.copied()) << call;
  }
}

TEST(SnapshotStream, WithoutAGraphCopiesAreSubmittedOneByOne) {
  World world(kSizes);
  SnapshotStream stream(world.cuda, 0);
  stream.register_memory(world.frame.data(), world.frame.size());
  world.cuda.fail_next("end_capture", CudaFault::capture, 0, 2);
  stream.set_copies(world.items);
  EXPECT_FALSE(stream.uses_graph());
  world.snapshot(stream);
  EXPECT_TRUE(world.copied());
  ASSERT_EQ(stream.notes().size(), 1U);
  EXPECT_NE(stream.notes()[0].find("no graph"), std::string::npos);
}

TEST(SnapshotStream, MemoryThatCannotBePinnedIsCopiedToWithoutAGraph) {
  World world(kSizes);
  SnapshotStream stream(world.cuda, 0);
  world.cuda.fail_next("register_host", CudaFault::refused, 0, 2);
  EXPECT_FALSE(stream.register_memory(world.frame.data(), world.frame.size()));
  stream.set_copies(world.items);
  EXPECT_FALSE(stream.uses_graph());
  world.snapshot(stream);
  EXPECT_TRUE(world.copied());
  EXPECT_EQ(stream.notes().size(), 2U);
  // Once it can be, the same list is captured.
  ASSERT_TRUE(stream.register_memory(world.frame.data(), world.frame.size()));
  stream.set_copies(world.items);
  EXPECT_TRUE(stream.uses_graph());
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

TEST(SnapshotStream, ALaunchThatFailsLeavesNoCompleteSnapshotAndCanBeTriedAgain) {
  for (const bool with_graph : {true, false}) {
    World world(kSizes);
    SnapshotStream stream(world.cuda, 0);
    if (with_graph) {
      stream.register_memory(world.frame.data(), world.frame.size());
    }
    stream.set_copies(world.items);
    world.cuda.fail_next(with_graph ? "launch_graph" : "copy", CudaFault::failed, with_graph ? 0 : 1);
    EXPECT_THROW(stream.begin(kTraining), CudaError);
    EXPECT_THROW(stream.begin(kTraining), NativeError) << "part of it may still be written";
    world.cuda.run();
    EXPECT_TRUE(stream.wait(1));
    EXPECT_FALSE(stream.complete());
    EXPECT_THROW((void)stream.hashes(), NativeError);
    world.snapshot(stream);
    EXPECT_TRUE(stream.complete());
    EXPECT_TRUE(world.copied());
  }
}

TEST(SnapshotStream, AfterTheContextIsLostEveryCallSaysWhy) {
  for (const char* const call : {"record", "wait_event", "launch_graph", "reached"}) {
    World world(kSizes);
    SnapshotStream stream(world.cuda, 0);
    stream.register_memory(world.frame.data(), world.frame.size());
    stream.set_copies(world.items);
    world.cuda.fail_next(call, CudaFault::context_lost);
    EXPECT_THROW(
        {
          stream.begin(kTraining);
          stream.wait(0);
        },
        CudaError)
        << call;
    EXPECT_FALSE(stream.complete()) << call;
    try {
      stream.gate(kTraining);
      FAIL() << "a call worked after " << call;
    } catch (const CudaError& error) {
      EXPECT_EQ(error.fault(), CudaFault::context_lost);
      EXPECT_NE(std::string(error.what()).find(std::string(call) + ": scripted"), std::string::npos);
    }
  }
}

TEST(SnapshotStream, AContextThatIsLostWhileCapturingEndsTheAttempt) {
  World world(kSizes);
  SnapshotStream stream(world.cuda, 0);
  stream.register_memory(world.frame.data(), world.frame.size());
  world.cuda.fail_next("begin_capture", CudaFault::context_lost);
  EXPECT_THROW(stream.set_copies(world.items), CudaError);
  EXPECT_THROW(stream.set_copies(world.items), CudaError);
}

TEST(SnapshotStream, AnErrorWhileWaitingIsReportedAndLeavesNoCompleteSnapshot) {
  World world({1000});
  SnapshotStream stream(world.cuda, 0);
  stream.set_copies(world.items);
  stream.begin(kTraining);
  world.cuda.fail_next("reached", CudaFault::failed);
  EXPECT_THROW(stream.wait(1), CudaError);
  EXPECT_THROW(stream.begin(kTraining), NativeError) << "the device may still write";
  EXPECT_FALSE(stream.wait(0));
  world.cuda.run();
  EXPECT_TRUE(stream.wait(0));
  EXPECT_FALSE(stream.complete());
  world.snapshot(stream);
  EXPECT_TRUE(stream.complete());
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

TEST(SnapshotStream, LeavesADeviceThatHangsWhatItMayStillWriteTo) {
  World world(kSizes);
  {
    SnapshotStream stream(world.cuda, 0);
    stream.register_memory(world.frame.data(), world.frame.size());
    stream.set_copies(world.items);
    stream.begin(kTraining);
  }
  EXPECT_EQ(world.cuda.things_held(), 6U) << "four pieces of device memory and two of pinned memory";
  world.cuda.run();  // it wakes up again: under the address sanitizer a write to freed memory fails here
  EXPECT_TRUE(world.copied());
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
