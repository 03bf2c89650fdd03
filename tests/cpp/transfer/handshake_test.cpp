// The handshake: who holds the secret gets in, in both directions; whatever differs by a bit, a job, a role
// or a connection does not.
#include "transfer/handshake.h"

#include <gtest/gtest.h>

#include <string>

#include "base/error.h"

namespace hpresil::transfer {
namespace {

JobKey job(const std::string& secret = "sixteen bytes...", const std::string& name = "job") {
  return {std::as_bytes(std::span(secret)), name};
}

Nonce nonce(int fill) {
  Nonce made{};
  made.fill(static_cast<std::byte>(fill));
  return made;
}

Hello hello() {
  return {.generation = 3,
          .version = 7,
          .chunk_bytes = 1U << 20,
          .wait_ms = 5,
          .purpose = Purpose::chunks,
          .nonce = nonce(1)};
}

constexpr Accept kAccept = {.verdict = Verdict::welcome, .has_crc = true, .frame_bytes = 12345, .crc = 99};

TEST(Handshake, LetsBothSidesInThatHoldTheSecret) {
  ClientHandshake client(job(), hello());
  ServerHandshake server(job(), nonce(2));
  const auto challenge = server.answer(client.hello());
  ASSERT_TRUE(challenge);
  EXPECT_EQ(server.hello().version, 7U);
  const auto proof = client.answer(*challenge);
  ASSERT_TRUE(proof);
  EXPECT_TRUE(server.proves(*proof));
  const auto accept = client.accept(server.accept(kAccept));
  ASSERT_TRUE(accept);
  EXPECT_EQ(accept->frame_bytes, 12345U);
  EXPECT_EQ(client.keys().client_writes, server.keys().client_writes);
  EXPECT_EQ(client.keys().server_writes, server.keys().server_writes);
  EXPECT_NE(client.keys().client_writes, client.keys().server_writes);
}

TEST(Handshake, RefusesAnotherSecretOrJob) {
  for (const JobKey& other : {job("another secret.."), job("sixteen bytes...", "job2")}) {
    ClientHandshake client(other, hello());
    ServerHandshake server(job(), nonce(2));
    const auto challenge = server.answer(client.hello());
    EXPECT_FALSE(server.proves(*client.answer(*challenge)));
    EXPECT_FALSE(client.accept(server.accept(kAccept))) << "a false server is noticed as well";
  }
  const std::string short_secret = "short";
  EXPECT_THROW(JobKey(std::as_bytes(std::span(short_secret)), "job"), NativeError);
}

TEST(Handshake, RefusesAProofOfAnotherConnection) {
  ClientHandshake client(job(), hello());
  ServerHandshake first(job(), nonce(2));
  ServerHandshake second(job(), nonce(3));
  const auto proof = client.answer(*first.answer(client.hello()));
  (void)second.answer(client.hello());
  EXPECT_TRUE(first.proves(*proof));
  EXPECT_FALSE(second.proves(*proof)) << "a recording is of no use";
}

TEST(Handshake, RefusesItsOwnProofTurnedBack) {
  ClientHandshake client(job(), hello());
  ServerHandshake server(job(), nonce(2));
  const auto proof = client.answer(*server.answer(client.hello()));
  std::array<std::byte, kAcceptBytes> turned{};
  const AcceptBody body = encode(kAccept);
  std::copy(body.begin(), body.end(), turned.begin());
  std::copy(proof->begin(), proof->end(), turned.begin() + body.size());
  EXPECT_FALSE(client.accept(turned));
}

TEST(Handshake, NoticesEveryChangedBit) {
  for (std::size_t bit = 0; bit < kHelloBytes * 8; ++bit) {
    ClientHandshake client(job(), hello());
    ServerHandshake server(job(), nonce(2));
    HelloFrame changed = client.hello();
    changed[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    const auto challenge = server.answer(changed);
    EXPECT_TRUE(!challenge || !server.proves(*client.answer(*challenge))) << "bit " << bit;
  }
  ClientHandshake client(job(), hello());
  ServerHandshake server(job(), nonce(2));
  (void)client.answer(*server.answer(client.hello()));
  const auto accept = server.accept(kAccept);
  for (std::size_t bit = 0; bit < kAcceptBytes * 8; ++bit) {
    auto changed = accept;
    changed[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_FALSE(client.accept(changed)) << "bit " << bit;
  }
}

TEST(Handshake, RefusesFramesOfAnotherSize) {
  ServerHandshake server(job(), nonce(2));
  const std::vector<std::byte> much(1000);
  for (std::size_t size = 0; size < much.size(); ++size) {
    EXPECT_FALSE(server.answer(Bytes(much).first(size)));
    EXPECT_FALSE(server.proves(Bytes(much).first(size)));
  }
}

TEST(Sequence, FitsOnlyInItsPlaceOnItsConnection) {
  const Key key = job().derive("a", {});
  const Key other_key = job().derive("b", {});
  const std::string text = "message";
  const Bytes message = std::as_bytes(std::span(text));
  Sequence one(key);
  Sequence two(key);
  Sequence other(other_key);
  const Tag first = one.next(message);
  const Tag second = one.next(message);
  EXPECT_NE(first, second) << "repeated or moved";
  EXPECT_EQ(two.next(message), first);
  EXPECT_EQ(two.next(message), second);
  EXPECT_NE(other.next(message), first) << "another connection";
}

TEST(Gmac, AgreesWithTheStandardsTestCase) {
  // Test case 13 of the GCM specification: AES-256, key and number zero, no text.
  Gmac gmac(Key{});
  gmac.begin(0, 0);
  const Tag expected = {std::byte{0x53}, std::byte{0x0f}, std::byte{0x8a}, std::byte{0xfb},
                        std::byte{0xc7}, std::byte{0x45}, std::byte{0x36}, std::byte{0xb9},
                        std::byte{0xa9}, std::byte{0x63}, std::byte{0xb4}, std::byte{0xf1},
                        std::byte{0xc4}, std::byte{0xcb}, std::byte{0x73}, std::byte{0x8b}};
  EXPECT_EQ(gmac.finish(), expected);
}

}  // namespace
}  // namespace hpresil::transfer
