// Server and fetch in one process, over the loopback: right bytes, chains, stripes, silence, and an end.
#include "transfer/fetch.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>

#include "base/clock.h"
#include "transfer/server.h"
#include "transfer/stream.h"

namespace hpresil::transfer {
namespace {

constexpr std::int64_t kSecond = 1'000'000'000;
constexpr Identity kIdentity = {4, 11};

JobKey job(const std::string& secret = "sixteen bytes...") {
  return {std::as_bytes(std::span(secret)), "job"};
}

Fd filled(std::size_t nbytes, unsigned seed) {
  Fd fd = create_memfd("frame", nbytes);
  add_seals(fd.get(), F_SEAL_SHRINK);
  const Mapping mapping(fd.get(), nbytes, true, true);
  std::mt19937 random(seed);
  for (std::size_t i = 0; i < nbytes; ++i) {
    mapping.data()[i] = static_cast<std::byte>(random());
  }
  return fd;
}

bool same(int a, int b, std::size_t nbytes) {
  const Mapping first(a, nbytes, false, false);
  const Mapping second(b, nbytes, false, false);
  return std::memcmp(first.data(), second.data(), nbytes) == 0;
}

FrameServer serve(std::size_t most_waiting = 16, std::int64_t handshake_ns = 5 * kSecond,
                  std::size_t most_clients = 64) {
  return {{.door = {.host = "127.0.0.1",
                    .port = 0,
                    .unix_path = "",
                    .handshake_ns = handshake_ns,
                    .most_waiting = most_waiting},
           .stall_ns = 2 * kSecond,
           .idle_ns = 20 * kSecond,
           .most_clients = most_clients},
          job()};
}

Grid grid(std::size_t nbytes) { return {nbytes, 4096}; }

std::shared_ptr<Frame> offered(const Fd& fd, std::size_t nbytes, std::uint64_t begin = 0) {
  return std::make_shared<Frame>(job(), kIdentity, grid(nbytes), Location{fd.get(), begin, nullptr}, false);
}

std::shared_ptr<Frame> arriving(const Fd& fd, std::size_t nbytes, const JobKey& key = job()) {
  return std::make_shared<Frame>(key, kIdentity, grid(nbytes), Location{fd.get(), 0, nullptr}, true);
}

Source at(const FrameServer& server) {
  return {.name = "", .routes = {{.from = "", .host = "127.0.0.1", .port = server.port()}}, .unix_path = ""};
}

FetchSettings settings(std::size_t at_once = 1) {
  return {.streams = 2,
          .at_once = at_once,
          .window = 3,
          .connect_ns = 2 * kSecond,
          .stall_ns = 2 * kSecond,
          .deadline_ns = 60 * kSecond,
          .appear_ms = 1000,
          .copy_threads = 1};
}

TEST(FrameFetch, BringsTheRightBytesOfAnySize) {
  FrameServer server = serve();
  for (const std::size_t nbytes :
       {std::size_t{1}, std::size_t{4095}, std::size_t{4096}, std::size_t{4097}, std::size_t{1'234'567}}) {
    const Fd from = filled(nbytes, 1);
    const Fd to = create_memfd("to", nbytes);
    const auto offer = server.offer(offered(from, nbytes), std::nullopt);
    FrameFetch fetch(arriving(to, nbytes), {at(server)}, settings(), {});
    ASSERT_TRUE(fetch.wait(60 * kSecond));
    EXPECT_EQ(fetch.state(), "done") << fetch.reports()[0].last_error;
    EXPECT_TRUE(same(from.get(), to.get(), nbytes));
    EXPECT_EQ(fetch.reports()[0].received_bytes, nbytes);
    EXPECT_EQ(ask_size(job(), kIdentity, at(server), kSecond, 0), nbytes);
    EXPECT_TRUE(server.withdraw(offer, 5 * kSecond));
  }
}

TEST(FrameFetch, LeavesWhatLiesBeforeTheFrameAlone) {
  constexpr std::size_t kBytes = 50'000;
  constexpr std::uint64_t kBegin = 5000;
  FrameServer server = serve();
  const Fd from = filled(kBegin + kBytes, 7);
  const Fd to = create_memfd("to", kBegin + kBytes);
  server.offer(offered(from, kBytes, kBegin), std::nullopt);
  auto frame =
      std::make_shared<Frame>(job(), kIdentity, grid(kBytes), Location{to.get(), kBegin, nullptr}, true);
  FrameFetch fetch(frame, {at(server)}, settings(), {});
  ASSERT_TRUE(fetch.wait(60 * kSecond));
  EXPECT_EQ(fetch.state(), "done");
  const Mapping sent(from.get(), kBegin + kBytes, false, false);
  const Mapping found(to.get(), kBegin + kBytes, false, false);
  EXPECT_EQ(std::memcmp(sent.data() + kBegin, found.data() + kBegin, kBytes), 0);
  EXPECT_TRUE(
      std::all_of(found.data(), found.data() + kBegin, [](std::byte each) { return each == std::byte{0}; }));
  EXPECT_THROW(offered(from, kBytes, kBegin + 4096), NativeError) << "ends behind the file";
}

TEST(FrameFetch, AsksOnlyForWhatIsNotHere) {
  constexpr std::size_t kBytes = 40'960;
  FrameServer server = serve();
  const Fd from = filled(kBytes, 2);
  const Fd to = create_memfd("to", kBytes);
  server.offer(offered(from, kBytes), std::nullopt);
  const std::vector<std::uint8_t> here = {1, 0, 1, 1, 1, 1, 1, 1, 1, 0};
  FrameFetch fetch(arriving(to, kBytes), {at(server)}, settings(), here);
  ASSERT_TRUE(fetch.wait(60 * kSecond));
  EXPECT_EQ(fetch.state(), "done");
  EXPECT_EQ(server.served().sent.load(), 2U * 4096U);
}

TEST(FrameFetch, IsAPipelineThroughAHopThatHasNotEverythingYet) {
  constexpr std::size_t kBytes = 3'000'000;
  FrameServer source = serve();
  FrameServer hop = serve();
  const Fd from = filled(kBytes, 3);
  const Fd middle = create_memfd("middle", kBytes);
  const Fd to = create_memfd("to", kBytes);
  FrameFetch last(arriving(to, kBytes), {at(hop), at(source)}, settings(), {});
  FrameFetch first(arriving(middle, kBytes), {at(source)}, settings(), {});
  hop.offer(first.frame(), std::nullopt);
  source.offer(offered(from, kBytes), std::nullopt);
  ASSERT_TRUE(last.wait(60 * kSecond));
  EXPECT_EQ(last.state(), "done");
  EXPECT_TRUE(same(from.get(), to.get(), kBytes));
  EXPECT_EQ(source.served().sent.load(), kBytes) << "one copy leaves the source";
  EXPECT_EQ(last.reports()[0].received_bytes, kBytes);
}

TEST(FrameFetch, GoesOnWithoutASourceThatDies) {
  constexpr std::size_t kBytes = 6'000'000;
  const Fd from = filled(kBytes, 4);
  const Fd to = create_memfd("to", kBytes);
  FrameServer lives = serve();
  auto dies = std::make_unique<FrameServer>(ServerSettings{.door = {.host = "127.0.0.1",
                                                                    .port = 0,
                                                                    .unix_path = "",
                                                                    .handshake_ns = kSecond,
                                                                    .most_waiting = 4},
                                                           .stall_ns = kSecond,
                                                           .idle_ns = kSecond,
                                                           .most_clients = 8},
                                            job());
  lives.offer(offered(from, kBytes), std::nullopt);
  dies->offer(offered(from, kBytes), std::nullopt);
  FrameFetch fetch(arriving(to, kBytes), {at(*dies), at(lives)}, settings(2), {});
  while (dies->served().chunks == 0) {
  }
  dies.reset();
  ASSERT_TRUE(fetch.wait(60 * kSecond));
  EXPECT_EQ(fetch.state(), "done");
  EXPECT_TRUE(same(from.get(), to.get(), kBytes));
}

TEST(FrameFetch, FailsClearlyWithAnotherSecretAndIsCounted) {
  FrameServer server = serve();
  const Fd to = create_memfd("to", 4096);
  FrameFetch fetch(arriving(to, 4096, job("another secret..")), {at(server)}, settings(), {});
  ASSERT_TRUE(fetch.wait(60 * kSecond));
  EXPECT_EQ(fetch.state(), "failed");
  EXPECT_GE(server.refused()["wrong secret"], 1U);
  EXPECT_EQ(server.served().sent.load(), 0U);
}

TEST(FrameFetch, EndsWhenItIsCancelledOrLate) {
  FrameServer server = serve();
  const Fd from = create_memfd("from", 8192);
  const Fd to = create_memfd("to", 8192);
  server.offer(arriving(from, 8192), std::nullopt);  // nothing ever arrives there
  {
    FrameFetch fetch(arriving(to, 8192), {at(server)}, settings(), {});
    EXPECT_FALSE(fetch.wait(50'000'000));
    fetch.cancel();
    EXPECT_TRUE(fetch.wait(5 * kSecond));
    EXPECT_EQ(fetch.state(), "cancelled");
  }
  FetchSettings late = settings();
  late.deadline_ns = 200'000'000;
  FrameFetch fetch(arriving(to, 8192), {at(server)}, late, {});
  EXPECT_TRUE(fetch.wait(5 * kSecond));
  EXPECT_EQ(fetch.state(), "deadline");
}

// What one that is full says to a client that has proved itself.
Verdict verdict_of(const FrameServer& server) {
  Connection connection = Connection::to(at(server).routes[0], kSecond, nullptr);
  const Hello hello = {.generation = kIdentity.generation,
                       .version = kIdentity.version,
                       .chunk_bytes = 4096,
                       .wait_ms = 0,
                       .purpose = Purpose::chunks,
                       .nonce = {}};
  return greet(connection, job(), hello, kSecond).accept.verdict;
}

TEST(FrameServer, SaysThatItIsFullAndServesWhoWaitsOnceThereIsRoom) {
  constexpr std::size_t kBytes = 100'000;
  FrameServer server = serve(16, 5 * kSecond, 1);
  const Fd from = filled(kBytes, 6);
  const Fd first = create_memfd("first", kBytes);
  const Fd second = create_memfd("second", kBytes);
  const auto slow = arriving(first, kBytes);
  const std::uint64_t offer = server.offer(slow, std::nullopt);  // nothing ever arrives there
  auto taker = std::make_unique<FrameFetch>(arriving(second, kBytes), std::vector{at(server)}, settings(),
                                            std::vector<std::uint8_t>());
  const std::int64_t end = monotonic_ns() + 60 * kSecond;
  while (server.takers(offer) == 0) {
    ASSERT_LT(monotonic_ns(), end) << "it does not take what is offered";
  }
  EXPECT_EQ(verdict_of(server), Verdict::too_many);
  const Fd third = create_memfd("third", kBytes);
  FrameFetch waits(arriving(third, kBytes), {at(server)}, settings(), {});
  while (waits.reports()[0].reasons["too many"] <= static_cast<std::uint64_t>(Sources::kTries)) {
    ASSERT_FALSE(waits.wait(kSecond / 100)) << "it was given up although it lives";
    ASSERT_LT(monotonic_ns(), end) << "it does not ask again";
  }
  server.offer(offered(from, kBytes), std::nullopt);
  taker.reset();
  ASSERT_TRUE(waits.wait(60 * kSecond));
  EXPECT_EQ(waits.state(), "done");
  EXPECT_TRUE(same(from.get(), third.get(), kBytes));
}

TEST(FrameServer, LetsGoOfAnEndedConnectionThoughNobodyElseComes) {
  FrameServer server = serve();
  const auto descriptors = [] {
    return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), {});
  };
  const auto before = descriptors();
  EXPECT_EQ(verdict_of(server), Verdict::not_here);
  const std::int64_t end = monotonic_ns() + 5 * kSecond;
  while (descriptors() > before && monotonic_ns() < end) {
  }
  EXPECT_EQ(descriptors(), before);
}

TEST(FrameServer, LetsClientsInWhileManyStrangersAreSilent) {
  FrameServer server = serve(8);
  std::vector<Connection> silent;
  for (int i = 0; i < 100; ++i) {
    silent.push_back(Connection::to(at(server).routes[0], kSecond, nullptr));
  }
  const Fd from = filled(100'000, 5);
  const Fd to = create_memfd("to", 100'000);
  server.offer(offered(from, 100'000), std::nullopt);
  FrameFetch fetch(arriving(to, 100'000), {at(server)}, settings(), {});
  ASSERT_TRUE(fetch.wait(60 * kSecond));
  EXPECT_EQ(fetch.state(), "done");
  EXPECT_LE(server.waiting(), 8U);
  EXPECT_GE(server.refused()["crowded out"], 90U);
}

TEST(FrameServer, CutsOffWhoRepeatsARequest) {
  FrameServer server = serve();
  const Fd from = filled(8192, 6);
  server.offer(offered(from, 8192), std::nullopt);
  Connection connection = Connection::to(at(server).routes[0], kSecond, nullptr);
  const Hello hello = {.generation = kIdentity.generation,
                       .version = kIdentity.version,
                       .chunk_bytes = 4096,
                       .wait_ms = 0,
                       .purpose = Purpose::chunks,
                       .nonce = {}};
  const Greeting greeting = greet(connection, job(), hello, kSecond);
  ASSERT_EQ(greeting.accept.verdict, Verdict::welcome);
  const RequestBody body = encode(Request{Wish::chunk, 4096, 0});
  const Tag tag = Sequence(greeting.keys.client_writes).next(body);
  std::vector<std::byte> answer(kAnswerBytes + 4096);
  connection.send_all(body);
  connection.send_all(tag);
  connection.receive_all(answer);
  connection.send_all(body);
  connection.send_all(tag);
  EXPECT_THROW(connection.receive_all(answer), Broken);
  EXPECT_EQ(server.refused()["bad request"], 1U);
}

}  // namespace
}  // namespace hpresil::transfer
