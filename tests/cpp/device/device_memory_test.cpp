// Memory that one process holds and another maps: what is undone, and that the host's twin really passes it.
#include "device/device_memory.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <thread>

#include "device/fake_driver.h"

namespace hpresil {
namespace {

using testing::FakeDriver;
constexpr std::size_t kUnit = FakeDriver::kGranularity;

std::size_t open_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

CudaFault fault_in(const std::function<void()>& work) {
  try {
    work();
  } catch (const CudaError& error) {
    return error.fault();
  }
  ADD_FAILURE() << "nothing was thrown";
  return CudaFault::failed;
}

TEST(HeldMemory, IsRoundedUpAndReleasedOnce) {
  FakeDriver driver;
  EXPECT_EQ(HeldMemory(driver, 0, 1).bytes(), kUnit);
  EXPECT_EQ(HeldMemory(driver, 0, kUnit).bytes(), kUnit);
  EXPECT_EQ(HeldMemory(driver, 0, kUnit + 1).bytes(), 2 * kUnit);
  EXPECT_EQ(driver.things_held(), 0U);
  EXPECT_THROW(HeldMemory(driver, 0, 0), NativeError);
  EXPECT_THROW(HeldMemory(driver, 0, std::size_t{0} - 1), NativeError);
}

TEST(HeldMemory, NeedsNoContext) {
  FakeDriver driver;
  const HeldMemory held(driver, 0, 1);
  (void)held.export_fd();
  EXPECT_EQ(std::count(driver.calls.begin(), driver.calls.end(), "enter"), 0);
}

TEST(HeldMemory, ADeviceThatCannotPassMemoryIsRefusedBeforeAnythingIsMade) {
  FakeDriver driver;
  driver.passes_memory = false;
  EXPECT_EQ(fault_in([&] { HeldMemory(driver, 0, 1); }), CudaFault::refused);
  EXPECT_EQ(fault_in([&] { MappedDeviceMemory(driver, 0, 0, 1); }), CudaFault::refused);
  EXPECT_EQ(driver.things_held(), 0U);
}

TEST(HeldMemory, OutOfMemoryAndAFailedExportLeaveNothing) {
  FakeDriver driver;
  driver.fail_next("create", CudaFault::out_of_memory);
  EXPECT_EQ(fault_in([&] { HeldMemory(driver, 0, 1); }), CudaFault::out_of_memory);
  EXPECT_EQ(driver.things_held(), 0U);
  const std::size_t before = open_descriptors();
  {
    const HeldMemory held(driver, 0, 1);
    driver.fail_next("export", CudaFault::failed);
    EXPECT_EQ(fault_in([&] { (void)held.export_fd(); }), CudaFault::failed);
    EXPECT_NE(fcntl(held.export_fd().get(), F_GETFD) & FD_CLOEXEC, 0) << "the next export works";
  }
  EXPECT_EQ(driver.things_held(), 0U);
  EXPECT_EQ(open_descriptors(), before);
}

TEST(MappedDeviceMemory, IsUndoneInTheReverseOrderOnceTheDeviceIsIdle) {
  FakeDriver driver;
  const Fd fd = HeldMemory(driver, 0, 1).export_fd();
  driver.calls.clear();
  {
    const MappedDeviceMemory mapped(driver, 0, fd.get(), 1);
  }
  const std::vector<std::string> expected = {"require_passing", "granularity", "enter",     "reserve",
                                             "import",          "map",         "allow",     "release",
                                             "wait_idle",       "unmap",       "give_back", "leave"};
  EXPECT_EQ(driver.calls, expected);
  EXPECT_EQ(driver.things_held(), 0U);
}

class FailingCall : public ::testing::TestWithParam<const char*> {};

TEST_P(FailingCall, LeavesNothingBehindAndTheNextMappingWorks) {
  FakeDriver driver;
  const Fd fd = HeldMemory(driver, 0, 1).export_fd();
  const std::size_t before = open_descriptors();
  driver.fail_next(GetParam(), CudaFault::out_of_memory);
  EXPECT_EQ(fault_in([&] { MappedDeviceMemory(driver, 0, fd.get(), 1); }), CudaFault::out_of_memory);
  EXPECT_TRUE(driver.has_failed());
  EXPECT_EQ(driver.things_held(), 0U);
  EXPECT_EQ(open_descriptors(), before);
  {
    const MappedDeviceMemory mapped(driver, 0, fd.get(), 1);
  }
  EXPECT_EQ(driver.things_held(), 0U);
}

INSTANTIATE_TEST_SUITE_P(MappedDeviceMemory, FailingCall,
                         ::testing::Values("require_passing", "granularity", "enter", "reserve", "import",
                                           "map", "allow"));

TEST(MappedDeviceMemory, ThreadsMapAndUnmapAtOnce) {
  FakeDriver driver;
  const HeldMemory held(driver, 0, 1);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 50; ++round) {
        const MappedDeviceMemory mapped(driver, 0, held.export_fd().get(), 1);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(driver.things_held(), 1U);
}

// The twin, for real.

TEST(HostDriver, WhatOneMappingWritesAnotherReads) {
  const HeldMemory held(host_driver(), kHostDevice, 10);
  const MappedDeviceMemory one(host_driver(), kHostDevice, held.export_fd().get(), 10);
  const MappedDeviceMemory two(host_driver(), kHostDevice, held.export_fd().get(), 10);
  EXPECT_NE(one.data(), two.data());
  std::fill_n(one.data(), one.bytes(), std::byte{7});
  EXPECT_EQ(two.data()[two.bytes() - 1], std::byte{7});
}

TEST(HostDriver, MemoryOutlivesItsHolderWhileADescriptorIsOpen) {
  const std::size_t before = open_descriptors();
  {
    std::optional<HeldMemory> held(std::in_place, host_driver(), kHostDevice, kUnit);
    const Fd fd = held->export_fd();
    {
      const MappedDeviceMemory mapped(host_driver(), kHostDevice, fd.get(), kUnit);
      held.reset();
      mapped.data()[3] = std::byte{9};
    }
    const MappedDeviceMemory again(host_driver(), kHostDevice, fd.get(), kUnit);
    EXPECT_EQ(again.data()[3], std::byte{9});
  }
  EXPECT_EQ(open_descriptors(), before);
}

TEST(HostDriver, AProcessThatIsKilledLeavesItsBytes) {
  const HeldMemory held(host_driver(), kHostDevice, kUnit);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    const MappedDeviceMemory mapped(host_driver(), kHostDevice, held.export_fd().get(), kUnit);
    mapped.data()[kUnit - 1] = std::byte{5};
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  const MappedDeviceMemory mapped(host_driver(), kHostDevice, held.export_fd().get(), kUnit);
  EXPECT_EQ(mapped.data()[kUnit - 1], std::byte{5});
}

TEST(HostDriver, RefusesWhatItCannotMap) {
  const HeldMemory held(host_driver(), kHostDevice, kUnit);
  const Fd fd = held.export_fd();
  EXPECT_THROW(MappedDeviceMemory(host_driver(), kHostDevice, fd.get(), 2 * kUnit), NativeError);
  EXPECT_THROW(MappedDeviceMemory(host_driver(), kHostDevice, -1, kUnit), NativeError);
  EXPECT_THROW(HeldMemory(host_driver(), 0, kUnit), NativeError) << "host memory belongs to no device";
  const Fd shrinkable = create_memfd("foreign", kUnit);
  EXPECT_THROW(MappedDeviceMemory(host_driver(), kHostDevice, shrinkable.get(), kUnit), NativeError);
}

}  // namespace
}  // namespace hpresil
