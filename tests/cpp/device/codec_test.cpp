// The device's delta, byte planes and block hashes: what is queued, what is refused, how long is waited.
#include "device/codec.h"

#include <gtest/gtest.h>

#include "device/block_hash.h"
#include "device/fake_cuda.h"

namespace hpresil {
namespace {

using testing::FakeCuda;
const auto kStream = reinterpret_cast<CudaApi::Stream>(1);

std::vector<std::byte> counted(std::size_t nbytes) {
  std::vector<std::byte> made(nbytes);
  for (std::size_t i = 0; i < nbytes; ++i) {
    made[i] = static_cast<std::byte>(i * 7 + i / 256);
  }
  return made;
}

TEST(DeviceCodec, ADeltaAndPlanesComeBack) {
  FakeCuda cuda;
  const auto data = counted(100'003);
  auto changed = data;
  changed[5000] = std::byte{1};
  std::vector<std::byte> planes(data.size());
  std::vector<std::byte> back(data.size());
  device_xor_delta(cuda, changed.data(), changed.data(), data.data(), data.size(), kStream);
  device_shuffle(cuda, planes.data(), changed.data(), data.size(), 4, false, kStream);
  device_shuffle(cuda, back.data(), planes.data(), data.size(), 4, true, kStream);
  device_xor_delta(cuda, back.data(), back.data(), data.data(), data.size(), kStream);
  cuda.run();
  EXPECT_EQ(back[5000], std::byte{1});
  back[5000] = data[5000];
  EXPECT_EQ(back, data);
}

TEST(DeviceCodec, NothingIsLaunchedForNothing) {
  FakeCuda cuda;
  device_xor_delta(cuda, nullptr, nullptr, nullptr, 0, kStream);
  device_shuffle(cuda, nullptr, nullptr, 0, 2, false, kStream);
  EXPECT_EQ(cuda.count("launch"), 0);
}

TEST(DeviceCodec, BadArgumentsAreRefusedBeforeTheLaunch) {
  FakeCuda cuda;
  auto data = counted(100);
  EXPECT_THROW(device_shuffle(cuda, data.data(), data.data(), 100, 4, false, kStream), NativeError);
  EXPECT_THROW(device_shuffle(cuda, nullptr, data.data(), 100, 3, false, kStream), NativeError);
  EXPECT_THROW(device_xor_delta(cuda, data.data() + 1, data.data(), data.data(), 50, kStream), NativeError);
  EXPECT_EQ(cuda.count("launch"), 0);
}

TEST(DeviceBlockHashes, AreThoseOfTheHost) {
  FakeCuda cuda;
  cuda.prompt = true;
  const auto data = counted(2 * kHashBlockBytes + 17);
  const auto found = device_block_hashes(cuda, data.data(), data.size(), kStream, 1);
  EXPECT_EQ(found, block_hashes(data.data(), data.size(), 1, CpuLevel::portable));
  EXPECT_TRUE(device_block_hashes(cuda, data.data(), 0, kStream, 1).empty());
  EXPECT_EQ(cuda.things_held(), 0U);
}

TEST(DeviceBlockHashes, LeaveADeviceThatHangsWhatItMayStillWriteTo) {
  FakeCuda cuda;
  const auto data = counted(100);
  EXPECT_THROW((void)device_block_hashes(cuda, data.data(), data.size(), kStream, 0.001), NativeError);
  EXPECT_EQ(cuda.things_held(), 2U);
}

TEST(DeviceBlockHashes, GiveTheirMemoryBackAfterAnError) {
  FakeCuda cuda;
  const auto data = counted(100);
  for (const char* const call : {"allocate", "create_event", "copy", "launch", "record", "reached"}) {
    cuda.fail_next(call, CudaFault::failed);
    EXPECT_THROW((void)device_block_hashes(cuda, data.data(), data.size(), kStream, 1), CudaError) << call;
    EXPECT_EQ(cuda.things_held(), 0U) << call;
  }
}

}  // namespace
}  // namespace hpresil
