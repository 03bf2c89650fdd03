// The device snapshot against a scripted CUDA whose calls fail: what it does without, and what it says.
#include "device/snapshot_stream.h"

#include <gtest/gtest.h>

#include "device/snapshot_world.h"

namespace hpresil {
namespace {

using testing::kSizes;
using testing::kTraining;
using World = testing::SnapshotWorld;

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

}  // namespace
}  // namespace hpresil
