#include "transfer/stream.h"

#include <algorithm>
#include <cstring>

namespace hpresil::transfer {
namespace {

constexpr std::size_t kPieceBytes = std::size_t{256} << 10;  // checked while it is in the cache

}  // namespace

std::string words(Verdict verdict) {
  switch (verdict) {
    case Verdict::welcome:
      return "welcome";
    case Verdict::not_here:
      return "it does not have that version at that generation";
    case Verdict::other_chunks:
      return "it offers the frame in chunks of another size";
    case Verdict::too_many:
      return "it serves as many connections as it may (most_clients)";
    case Verdict::wrong_door:
      return "it passes descriptors over its Unix socket only";
  }
  return "?";
}

Greeting greet(Connection& connection, const JobKey& key, Hello hello, std::int64_t patience_ns) {
  fill_random(hello.nonce);
  ClientHandshake handshake(key, hello);
  connection.set_patience(patience_ns);
  connection.send_all(handshake.hello());
  ChallengeFrame challenge{};
  connection.receive_all(challenge);
  const auto proof = handshake.answer(challenge);
  if (!proof) {
    throw Broken("malformed", "what answers there is no transfer server of this version");
  }
  connection.send_all(*proof);
  connection.set_patience(patience_ns + std::int64_t{hello.wait_ms} * 1'000'000);
  std::array<std::byte, kAcceptBytes> frame{};
  connection.receive_all(frame);
  connection.set_patience(patience_ns);
  const auto accept = handshake.accept(frame);
  if (!accept) {
    throw Broken("wrong secret", "the server did not prove to hold the job's secret");
  }
  return {*accept, handshake.keys()};
}

Stream::Stream(Connection& connection, const SessionKeys& keys, Frame& frame)
    : connection_(connection),
      frame_(frame),
      said_(keys.client_writes),
      heard_(keys.server_writes),
      check_(frame.key(), frame.identity(), frame.grid()) {}

void Stream::ask(const Chunk& chunk) {
  send({.wish = Wish::chunk, .nbytes = chunk.nbytes, .offset = chunk.offset});
  asked_.push_back(chunk);
}

void Stream::send(const Request& request) {
  const RequestBody body = encode(request);
  const Tag tag = said_.next(body);
  std::array<std::byte, kRequestBytes> frame{};
  std::memcpy(frame.data(), body.data(), body.size());
  std::memcpy(frame.data() + body.size(), tag.data(), tag.size());
  connection_.send_all(frame);
}

Answer Stream::hear() {
  std::array<std::byte, kAnswerBytes> frame{};
  connection_.receive_all(frame);
  const Bytes body = Bytes(frame).first(sizeof(AnswerBody));
  if (!equal_secretly(heard_.next(body), Bytes(frame).subspan(sizeof(AnswerBody)))) {
    throw Broken("bad chunk", "an answer's check does not fit its place on this connection");
  }
  const auto answer = parse_answer(body);
  if (!answer) {
    throw Broken("bad chunk", "an answer is malformed");
  }
  return *answer;
}

Stream::Arrived Stream::receive() {
  const Chunk chunk = asked_.front();
  Answer answer = hear();
  while (answer.status == Status::wait) {
    answer = hear();
  }
  if (answer.status == Status::gone) {
    throw Broken("gone", "the server will not have the rest of the version");
  }
  if (answer.offset != chunk.offset || answer.nbytes != chunk.nbytes) {
    throw Broken("bad chunk", "the server sent another chunk than the one asked for");
  }
  const Seal seal = {answer.origin, answer.content};
  receive_bytes(chunk, seal);
  asked_.pop_front();
  return {chunk, seal};
}

void Stream::receive_bytes(const Chunk& chunk, const Seal& seal) {
  const std::span<std::byte> place(frame_.at(chunk), chunk.nbytes);
  check_.begin(seal.origin, chunk);
  for (std::size_t at = 0; at < place.size(); at += kPieceBytes) {
    const auto piece = place.subspan(at, std::min(kPieceBytes, place.size() - at));
    connection_.receive_all(piece);
    check_.add(piece);
  }
  if (!equal_secretly(check_.finish(), seal.content)) {
    throw Broken("bad chunk", "the bytes of a chunk do not have their check");
  }
}

void Stream::confirm() {
  send({.wish = Wish::still_valid, .nbytes = 0, .offset = 0});
  const Answer answer = hear();
  if (answer.status != Status::coming || answer.nbytes != 0) {
    throw Broken("withdrawn", "the frame was withdrawn while it was copied");
  }
}

}  // namespace hpresil::transfer
