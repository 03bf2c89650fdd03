// A CUDA driver without a device: it counts what is held, refuses what is out of order, fails when told to.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "device/driver_api.h"

namespace hpresil::testing {

class FakeDriver final : public DriverApi {
 public:
  static constexpr std::size_t kGranularity = 2 << 20;

  bool passes_memory = true;
  std::vector<std::string> calls;  // what succeeded, in order

  void fail_next(const std::string& call, CudaFault fault) { failures_[call] = fault; }
  bool has_failed() const { return failures_.empty(); }  // all that was asked for
  std::size_t things_held() const { return blocks_.size() + ranges_.size() + mapped_.size() + entered_; }

  void require_passing(int /*device*/) override {
    enter_call("require_passing");
    if (!passes_memory) {
      throw CudaError(CudaFault::refused, "this device cannot pass memory");
    }
  }
  std::size_t granularity(int /*device*/) override { return enter_call("granularity"), kGranularity; }

  Block create(int /*device*/, std::size_t nbytes) override {
    const auto held = enter_call("create");
    EXPECT_EQ(nbytes % kGranularity, 0U);
    return add_block();
  }
  Fd export_block(Block block) override {
    const auto held = enter_call("export");
    EXPECT_TRUE(blocks_.contains(block));
    return create_memfd("exported", kGranularity);
  }
  Block import_block(int fd) override {
    const auto held = enter_call("import");
    EXPECT_EQ(bytes_of(fd), kGranularity);
    return add_block();
  }
  void release(Block block) noexcept override {
    const auto held = note("release");
    EXPECT_EQ(blocks_.erase(block), 1U) << "released twice";
  }

  std::byte* reserve(std::size_t nbytes) override {
    const auto held = enter_call("reserve");
    next_ += nbytes;
    auto* const address = reinterpret_cast<std::byte*>(next_);
    ranges_[address] = nbytes;
    return address;
  }
  void give_back(std::byte* address, std::size_t nbytes) noexcept override {
    const auto held = note("give_back");
    EXPECT_FALSE(mapped_.contains(address)) << "given back while something is mapped there";
    EXPECT_EQ(ranges_[address], nbytes);
    ranges_.erase(address);
  }
  void map(std::byte* address, std::size_t nbytes, Block block) override {
    const auto held = enter_call("map");
    EXPECT_TRUE(blocks_.contains(block));
    EXPECT_EQ(ranges_[address], nbytes);
    mapped_.insert(address);
  }
  void unmap(std::byte* address, std::size_t /*nbytes*/) noexcept override {
    const auto held = note("unmap");
    EXPECT_EQ(mapped_.erase(address), 1U);
  }
  void allow(int /*device*/, std::byte* address, std::size_t /*nbytes*/) override {
    const auto held = enter_call("allow");
    EXPECT_TRUE(mapped_.contains(address));
  }

  void enter(int /*device*/) override {
    const auto held = enter_call("enter");
    ++entered_;
  }
  void leave(int /*device*/) noexcept override {
    const auto held = note("leave");
    --entered_;
  }
  void wait_idle(int /*device*/) noexcept override { note("wait_idle"); }

 private:
  using Lock = std::unique_lock<std::mutex>;

  Lock note(const std::string& call) {
    Lock lock(mutex_);
    calls.push_back(call);
    return lock;
  }
  Lock enter_call(const std::string& call) {
    Lock lock(mutex_);
    const auto found = failures_.find(call);
    if (found != failures_.end()) {
      const CudaFault fault = found->second;
      failures_.erase(found);
      throw CudaError(fault, call + ": scripted");
    }
    calls.push_back(call);
    return lock;
  }
  Block add_block() {
    blocks_.insert(++last_block_);
    return last_block_;
  }

  std::mutex mutex_;
  Block last_block_ = 0;
  std::uintptr_t next_ = std::uintptr_t{1} << 40;
  std::size_t entered_ = 0;
  std::map<std::string, CudaFault> failures_;
  std::set<Block> blocks_;
  std::map<std::byte*, std::size_t> ranges_;
  std::set<std::byte*> mapped_;
};

}  // namespace hpresil::testing
