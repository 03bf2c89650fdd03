// Many communicators at once: they become ready, or all of them end with the first reason.
#include "communicator/bulk_init.h"

#include <gtest/gtest.h>

#include <thread>

#include "base/error.h"
#include "communicator/scripted_nccl.h"

namespace hpresil {
namespace {

constexpr double kLong = 20.0;

std::vector<InitSpec> specs(int count, std::size_t roots = 1) {
  std::vector<InitSpec> all;
  for (int i = 0; i < count; ++i) {
    all.push_back({{"c" + std::to_string(i), 7, 1, 4}, std::vector<NcclUniqueId>(roots)});
  }
  return all;
}

auto begin(ScriptedNccl& script, int count, std::size_t roots = 1) {
  const auto host = host_device_api();
  return begin_init(script.api(), *host, -1, specs(count, roots));
}

std::string failure(const std::function<void()>& call) {
  try {
    call();
  } catch (const NativeError& error) {
    return error.what();
  }
  return "";
}

TEST(BulkInit, BeginsAllInOneGroupAndWaitsForAll) {
  ScriptedNccl script;
  script.busy_for = {{0, 3}, {2, 20}};
  const auto pending = begin(script, 3);
  EXPECT_EQ(script.calls(), (std::vector<std::string>{"group start", "init", "init", "init", "group end"}));
  EXPECT_EQ(pending[2]->look(), kNcclInProgress);
  finish_init(pending, Deadline(kLong, "init"));
  for (const auto& communicator : pending) {
    EXPECT_EQ(communicator->look(), kNcclSuccess);
    EXPECT_TRUE(communicator->close(kLong));
  }
  EXPECT_EQ(script.count("destroy"), 3);
}

TEST(BulkInit, NeverBlocksAndNeverShares) {
  ScriptedNccl script;
  begin(script, 1);
  EXPECT_EQ(script.last_config().blocking, 0);
  EXPECT_EQ(script.last_config().split_share, 0);
  EXPECT_EQ(script.last_config().size, sizeof(NcclConfig));
  EXPECT_EQ(script.last_config().magic, kNcclMagic);
}

TEST(BulkInit, SeveralRootsNeedTheVersionThatKnowsThem) {
  ScriptedNccl script;
  begin(script, 1, 3);
  EXPECT_EQ(script.count("init with 3 roots"), 1);
  ScriptedNccl old;
  old.version = 22205;
  begin(old, 1, 3);
  EXPECT_EQ(old.count("init"), 1);
}

TEST(BulkInit, OneThatFailsEndsAllAndIsNamed) {
  ScriptedNccl script;
  script.busy_for = {{0, 2}, {1, 2}, {2, 1 << 30}};
  script.becomes = {{1, kNcclRemoteError}};
  const auto pending = begin(script, 3);
  const std::string why = failure([&] { finish_init(pending, Deadline(kLong, "init")); });
  EXPECT_NE(why.find("communicator c1 of generation 7, rank 1 of 4"), std::string::npos) << why;
  EXPECT_NE(why.find("remote process exited"), std::string::npos) << why;
  EXPECT_EQ(script.count("abort"), 3);
  EXPECT_NE(failure([&] { pending[2]->wait(Deadline(kLong, "more")); }).find("c1"), std::string::npos);
}

TEST(BulkInit, OneThatIsRefusedAtOnceEndsThoseThatHadBegun) {
  ScriptedNccl script;
  script.init_refused_at = 2;
  const std::string why = failure([&] { begin(script, 4); });
  EXPECT_NE(why.find("c2"), std::string::npos) << why;
  EXPECT_EQ(script.count("group end"), 1);
  EXPECT_EQ(script.count("abort"), 2);
}

TEST(BulkInit, AGroupThatFailsEndsAll) {
  ScriptedNccl script;
  script.group_end_returns = kNcclSystemError;
  EXPECT_NE(failure([&] { begin(script, 2); }).find("ncclGroupEnd"), std::string::npos);
  EXPECT_EQ(script.count("abort"), 2);
}

TEST(BulkInit, EndsAtItsDeadline) {
  ScriptedNccl script;
  script.stuck = true;
  const auto pending = begin(script, 2);
  const std::string why = failure([&] { finish_init(pending, Deadline(0.02, "init of the dead")); });
  EXPECT_NE(why.find("init of the dead did not happen within 0.02"), std::string::npos) << why;
  EXPECT_EQ(script.count("abort"), 2);
}

TEST(BulkInit, EndsWhenAnotherThreadGivesOneUp) {
  ScriptedNccl script;
  script.stuck = true;
  const auto pending = begin(script, 2);
  std::thread other([&] { pending[1]->abort("a newer generation", kLong); });
  const std::string why = failure([&] {
    other.join();
    script.stuck = false;
    finish_init(pending, Deadline(kLong, "init"));
  });
  EXPECT_NE(why.find("was given up: a newer generation"), std::string::npos) << why;
  EXPECT_EQ(script.count("abort"), 2);
}

}  // namespace
}  // namespace hpresil
