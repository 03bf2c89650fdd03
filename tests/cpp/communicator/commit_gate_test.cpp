// The gate over host memory and on a scripted device; the device's kernels are its twins (tests/gpu).
#include "communicator/commit_gate.h"

#include <gtest/gtest.h>

#include <array>
#include <set>

#include "base/error.h"
#include "device/fake_cuda.h"

namespace hpresil {
namespace {

struct Gated {
  float flag = 0.5F;
  std::array<std::uint64_t, 3> ballots{7, 7, 7};
  CommitGate gate{host_device_api(), &flag, ballots.data(), 3};
};

TEST(CommitGate, SaysNoUntilEveryBallotIsThere) {
  Gated gated;
  const std::uint64_t mine = gated.gate.close(4, 100, nullptr);
  EXPECT_EQ(gated.flag, 1.0F);
  EXPECT_EQ(gated.ballots, (std::array<std::uint64_t, 3>{0, 0, 0}));
  gated.ballots.fill(mine);
  gated.gate.open(nullptr);
  EXPECT_EQ(gated.flag, 0.0F);
}

TEST(CommitGate, SaysNoIfOneIsMissingOrFromAnotherStepOrGeneration) {
  for (int wrong = 0; wrong < 3; ++wrong) {
    Gated gated;
    const std::uint64_t other = Gated().gate.close(wrong == 0 ? 5 : 4, wrong == 1 ? 101 : 100, nullptr);
    const std::uint64_t mine = gated.gate.close(4, 100, nullptr);
    gated.ballots = {mine, wrong == 2 ? 0 : other, mine};
    gated.gate.open(nullptr);
    EXPECT_EQ(gated.flag, 1.0F);
  }
}

TEST(CommitGate, EveryRankComputesTheSameBallotAndNoTwoStepsShareOne) {
  std::set<std::uint64_t> seen{0};
  for (std::uint64_t generation = 0; generation < 40; ++generation) {
    for (std::uint64_t step = 0; step < 40; ++step) {
      const std::uint64_t ballot = Gated().gate.close(generation, step, nullptr);
      EXPECT_EQ(ballot, Gated().gate.close(generation, step, nullptr));
      EXPECT_TRUE(seen.insert(ballot).second);
    }
  }
}

TEST(CommitGate, IsMovedByTheDeviceInTheOrderOfItsStream) {
  testing::FakeCuda cuda;
  float flag = 0.5F;
  std::array<std::uint64_t, 3> ballots{7, 7, 7};
  CommitGate gate(cuda_device_api(cuda), &flag, ballots.data(), 3);
  const auto stream = cuda.create_stream();
  const std::uint64_t mine = gate.close(4, 100, stream);
  EXPECT_EQ(flag, 0.5F) << "nothing happens before the stream comes to it";
  cuda.train(stream, [&] {
    EXPECT_EQ(flag, 1.0F);
    EXPECT_EQ(ballots, (std::array<std::uint64_t, 3>{0, 0, 0}));
    ballots.fill(mine);
  });
  gate.open(stream);
  cuda.run();
  EXPECT_EQ(flag, 0.0F);
}

TEST(CudaDevice, AnEventIsReachedOnceTheStreamCameToItAndHeldByNobodyAfterwards) {
  testing::FakeCuda cuda;
  const auto device = cuda_device_api(cuda);
  const auto stream = cuda.create_stream();
  const auto held = cuda.things_held();
  DeviceEvent event = device->record(stream);
  EXPECT_FALSE(device->done(event));
  cuda.run();
  EXPECT_TRUE(device->done(event));
  device->drop(event);
  cuda.fail_next("record", CudaFault::failed);
  EXPECT_THROW(device->record(stream), CudaError);
  EXPECT_EQ(cuda.things_held(), held);
}

TEST(CommitGate, OpensOnceAfterAClosing) {
  Gated gated;
  EXPECT_THROW(gated.gate.open(nullptr), NativeError);
  gated.gate.close(1, 1, nullptr);
  gated.gate.open(nullptr);
  EXPECT_THROW(gated.gate.open(nullptr), NativeError);
}

}  // namespace
}  // namespace hpresil
