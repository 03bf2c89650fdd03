// A communicator that is given up, changed and used: the first reason stays, and no call follows the end.
#include "communicator/communicator.h"

#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "base/error.h"
#include "communicator/bulk_init.h"
#include "communicator/change.h"
#include "communicator/operations.h"
#include "communicator/scripted_nccl.h"

namespace hpresil {
namespace {

constexpr double kLong = 20.0;

std::shared_ptr<Communicator> one(ScriptedNccl& script, int rank = 1, int ranks = 4) {
  const auto host = host_device_api();
  const auto made = begin_init(script.api(), *host, -1, {{{"dp", 3, rank, ranks}, {NcclUniqueId{}}}});
  finish_init(made, Deadline(kLong, "init"));
  return made.front();
}

std::string failure(const std::function<void()>& call) {
  try {
    call();
  } catch (const NativeError& error) {
    return error.what();
  }
  return "";
}

TEST(Communicator, TheFirstReasonStays) {
  ScriptedNccl script;
  const auto communicator = one(script);
  std::vector<std::thread> threads;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] { communicator->abort("reason " + std::to_string(i), kLong); });
  }
  for (auto& thread : threads) {
    thread.join();
  }
  const std::string first = communicator->reason();
  EXPECT_EQ(first.substr(0, 7), "reason ");
  communicator->abort("too late", kLong);
  EXPECT_EQ(communicator->reason(), first);
  EXPECT_EQ(script.count("abort"), 1);
}

TEST(Communicator, EveryCallAfterTheEndSaysWhy) {
  ScriptedNccl script;
  const auto communicator = one(script);
  communicator->abort("rank 2 was killed", kLong);
  EXPECT_NE(failure([&] { communicator->look(); }).find("rank 2 was killed"), std::string::npos);
  EXPECT_NE(failure([&] { revoke(*communicator, Deadline(1, "revoke")); }).find("rank 2 was killed"),
            std::string::npos);
  EXPECT_EQ(script.count("look of one that is gone"), 0);
  EXPECT_EQ(script.count("revoke"), 0);
}

TEST(Communicator, AWaitInAnotherThreadEndsWithTheReason) {
  ScriptedNccl script;
  const auto communicator = one(script);
  script.stuck = true;
  std::string why;
  std::thread waiting([&] { why = failure([&] { communicator->wait(Deadline(kLong, "the sum")); }); });
  communicator->abort("hung peer", kLong);
  waiting.join();
  EXPECT_NE(why.find("hung peer"), std::string::npos) << why;
  EXPECT_EQ(script.count("look of one that is gone"), 0);
}

TEST(Communicator, AnAbortThatHangsIsLeftBehind) {
  ScriptedNccl script;
  const auto communicator = one(script);
  script.abort_hangs = true;
  EXPECT_FALSE(communicator->abort("stuck driver", 0.02));
  EXPECT_NE(failure([&] { communicator->look(); }).find("stuck driver"), std::string::npos);
  script.abort_hangs = false;
  EXPECT_TRUE(look_until(Deadline(kLong, "the abort"), [&] { return script.count("abort") == 1; }));
}

TEST(Communicator, AWaitNamesWhatFailedAndWhatDidNotHappen) {
  ScriptedNccl script;
  const auto communicator = one(script);
  script.set_state(0, kNcclRemoteError);
  const std::string why = failure([&] { communicator->wait(Deadline(kLong, "the sum of the gradients")); });
  EXPECT_NE(why.find("the sum of the gradients failed: remote process exited (the script says so)"),
            std::string::npos)
      << why;
  script.stuck = true;
  EXPECT_NE(failure([&] { communicator->wait(Deadline(0.01, "the sum")); }).find("did not happen within"),
            std::string::npos);
  EXPECT_EQ(communicator->reason(), "") << "a wait that fails leaves the decision to its caller";
}

TEST(Communicator, ACloseThatFailsIsAnAbort) {
  ScriptedNccl script;
  const auto communicator = one(script);
  script.stuck = true;
  EXPECT_FALSE(communicator->close(0.02));
  EXPECT_EQ(script.count("finalize"), 1);
  EXPECT_EQ(script.count("destroy"), 0);
  EXPECT_EQ(script.count("abort"), 1);
}

TEST(Change, RevokeThenShrinkThenGrow) {
  ScriptedNccl script;
  const auto old = one(script, 2, 4);
  revoke(*old, Deadline(kLong, "revoke"));
  const auto smaller = shrink(*old, {3, 0}, 4, Deadline(kLong, "shrink"));
  EXPECT_EQ(smaller->text(), "communicator dp of generation 4, rank 1 of 2");
  EXPECT_EQ(script.count("shrink 1 -0 -3"), 1) << "operations in flight are aborted";
  const NcclUniqueId id = grow_id(*smaller);
  const auto larger = grow(*smaller, 3, &id, 5, Deadline(kLong, "grow"));
  EXPECT_EQ(larger->text(), "communicator dp of generation 5, rank 1 of 3");
  const auto joined = join(script.api(), {"dp", 5, 2, 3}, id, Deadline(kLong, "join"));
  EXPECT_EQ(joined->place().rank, 2);
  EXPECT_EQ(script.count("grow to 3 member with id"), 1);
  EXPECT_EQ(script.count("grow to 3 newcomer 2 with id"), 1);
  EXPECT_EQ(script.last_config().blocking, 0);
}

TEST(Change, WhatAVersionDoesNotHaveIsRefusedWithoutACall) {
  ScriptedNccl script;
  script.version = 22606;
  const auto communicator = one(script);
  EXPECT_NE(failure([&] { revoke(*communicator, Deadline(1, "revoke")); }).find("2.28.9"), std::string::npos);
  EXPECT_NE(failure([&] { shrink(*communicator, {0}, 4, Deadline(1, "shrink")); }).find("2.27.0"),
            std::string::npos);
  EXPECT_NE(failure([&] { suspend(*communicator, Deadline(1, "suspend")); }).find("2.29.7"),
            std::string::npos);
  EXPECT_EQ(script.calls().back(), "group end");
}

TEST(Change, AShrinkThatFailsAbortsTheNewOneOnly) {
  ScriptedNccl script;
  script.becomes = {{1, kNcclRemoteError}};
  const auto old = one(script);
  EXPECT_NE(failure([&] { shrink(*old, {0}, 4, Deadline(kLong, "shrink")); }).find("remote process"),
            std::string::npos);
  EXPECT_EQ(script.count("abort"), 1);
  EXPECT_EQ(old->reason(), "");
  EXPECT_THROW(shrink(*old, {1}, 4, Deadline(kLong, "shrink")), NativeError) << "it cannot exclude itself";
  EXPECT_THROW(shrink(*old, {0, 0}, 4, Deadline(kLong, "shrink")), NativeError);
}

TEST(Change, ResourcesAreSharedInsideOfOneFailureDomainOnly) {
  ScriptedNccl script;
  const auto parent = one(script, 0, 2);
  const Place place{"tp", 3, 0, 2};
  ASSERT_NE(split(*parent, 0, {"node a", "node a"}, place, Deadline(kLong, "split")), nullptr);
  EXPECT_EQ(script.last_config().split_share, 1);
  ASSERT_NE(split(*parent, 0, {"node a", "node b"}, place, Deadline(kLong, "split")), nullptr);
  EXPECT_EQ(script.last_config().split_share, 0);
  EXPECT_EQ(split(*parent, -1, {"node a", "node b"}, place, Deadline(kLong, "split")), nullptr);
}

TEST(Change, AStandInIsSuspendedAndResumed) {
  ScriptedNccl script;
  const auto standing_in = one(script);
  suspend(*standing_in, Deadline(kLong, "suspend"));
  resume(*standing_in, Deadline(kLong, "resume"));
  EXPECT_EQ(script.count("suspend"), 1);
  EXPECT_EQ(script.count("resume"), 1);
}

TEST(Operations, GoOutGroupByGroup) {
  ScriptedNccl script;
  const auto communicator = one(script);
  const auto host = host_device_api();
  float from = 1;
  float to = 0;
  const std::vector<OperationGroup> groups = {
      {{Kind::all_reduce, &from, &to, 8, -1}},
      {{Kind::send, &from, nullptr, 5, 0},
       {Kind::receive, nullptr, &to, 6, 2},
       {Kind::broadcast, &from, &to, 7, 3}},
  };
  run(*communicator, *host, groups, nullptr, Deadline(kLong, "the transfer"));
  const auto calls = script.calls();
  EXPECT_EQ((std::vector<std::string>(calls.begin() + 3, calls.end())),
            (std::vector<std::string>{"group start", "all_reduce 2", "group end", "group start",
                                      "send 5 to 0", "receive 6 from 2", "broadcast 7 from 3", "group end"}));
}

TEST(Operations, ARankThatIsNoneIsRefusedBeforeAnythingGoesOut) {
  ScriptedNccl script;
  const auto communicator = one(script);
  const auto before = script.calls().size();
  const std::vector<OperationGroup> wrong = {{{Kind::send, nullptr, nullptr, 4, 4}}};
  EXPECT_THROW(enqueue(*communicator, wrong, nullptr, Deadline(1, "send")), NativeError);
  const std::vector<OperationGroup> odd = {{{Kind::all_reduce, nullptr, nullptr, 5, -1}}};
  EXPECT_THROW(enqueue(*communicator, odd, nullptr, Deadline(1, "sum")), NativeError);
  EXPECT_EQ(script.calls().size(), before);
}

// A device that is never done.
class BusyDevice final : public DeviceApi {
 public:
  int dropped = 0;
  std::function<void()> when_asked = [] {};
  void set_device(int /*device*/) override {}
  DeviceEvent record(CudaStream /*stream*/) override { return &dropped; }
  bool done(DeviceEvent /*event*/) override {
    when_asked();
    return false;
  }
  void drop(DeviceEvent /*event*/) noexcept override { ++dropped; }
  void close_gate(float* /*flag*/, std::uint64_t* /*ballots*/, int /*count*/,
                  CudaStream /*stream*/) override {}
  void open_gate(float* /*flag*/, const std::uint64_t* /*ballots*/, int /*count*/, std::uint64_t /*token*/,
                 CudaStream /*stream*/) override {}
};

TEST(Operations, ADeviceThatIsNeverDoneEndsAtTheDeadlineOrWithThePeersLoss) {
  ScriptedNccl script;
  const auto communicator = one(script);
  BusyDevice device;
  float value = 0;
  const std::vector<OperationGroup> sum = {{{Kind::all_reduce, &value, &value, 4, -1}}};
  EXPECT_NE(failure([&] {
              run(*communicator, device, sum, nullptr, Deadline(0.02, "the sum"));
            }).find("the sum did not happen"),
            std::string::npos);
  device.when_asked = [&] { script.set_state(0, kNcclRemoteError); };
  EXPECT_NE(failure([&] {
              run(*communicator, device, sum, nullptr, Deadline(kLong, "the sum"));
            }).find("remote process exited"),
            std::string::npos);
  EXPECT_EQ(device.dropped, 2);
}

}  // namespace
}  // namespace hpresil
