#include "transfer/handshake.h"

#include <cstring>
#include <vector>

#include "base/error.h"

namespace hpresil::transfer {
namespace {

using Text = std::vector<std::byte>;

void append(Text& text, Bytes more) { text.insert(text.end(), more.begin(), more.end()); }

Text joined(std::initializer_list<Bytes> parts) {
  Text text;
  for (const Bytes part : parts) {
    append(text, part);
  }
  return text;
}

SessionKeys session_keys(const JobKey& key, const HelloFrame& hello, const ChallengeFrame& challenge) {
  const Text context = joined({hello, challenge});
  return {key.derive("client writes", context), key.derive("server writes", context)};
}

Key client_proof(const JobKey& key, const HelloFrame& hello, const ChallengeFrame& challenge) {
  return key.derive("client proves", joined({hello, challenge}));
}

Key server_proof(const JobKey& key, const HelloFrame& hello, const ChallengeFrame& challenge, Bytes body) {
  return key.derive("server proves", joined({hello, challenge, body}));
}

template <std::size_t N>
void keep(std::array<std::byte, N>& into, Bytes frame) {
  std::memcpy(into.data(), frame.data(), N);
}

}  // namespace

JobKey::JobKey(Bytes secret, const std::string& job) {
  expects(secret.size() >= 16 && secret.size() <= 4096, "the job's secret must have 16 to 4096 bytes");
  const std::string label = "hpresil transfer 1 of job " + job;
  key_ = hmac_sha256(secret, std::as_bytes(std::span(label)));
}

JobKey::~JobKey() { wipe(key_); }

Key JobKey::derive(const std::string& label, Bytes context) const {
  Text text;
  append(text, std::as_bytes(std::span(label)));
  text.push_back(std::byte{0});  // no label holds it, so label and context cannot run into each other
  append(text, context);
  return hmac_sha256(key_, text);
}

Tag Sequence::next(Bytes message) {
  check_.begin(sent_++, 0);
  check_.add(message);
  return check_.finish();
}

ClientHandshake::ClientHandshake(const JobKey& key, const Hello& hello) : key_(key), hello_(encode(hello)) {}

std::optional<Key> ClientHandshake::answer(Bytes challenge) {
  if (!parse_challenge(challenge)) {
    return std::nullopt;
  }
  keep(challenge_, challenge);
  return client_proof(key_, hello_, challenge_);
}

std::optional<Accept> ClientHandshake::accept(Bytes frame) {
  if (frame.size() != kAcceptBytes) {
    return std::nullopt;
  }
  const Bytes body = frame.first(sizeof(AcceptBody));
  const Key expected = server_proof(key_, hello_, challenge_, body);
  if (!equal_secretly(expected, frame.subspan(sizeof(AcceptBody)))) {
    return std::nullopt;
  }
  return parse_accept(body);
}

SessionKeys ClientHandshake::keys() const { return session_keys(key_, hello_, challenge_); }

ServerHandshake::ServerHandshake(const JobKey& key, const Nonce& nonce)
    : key_(key), challenge_(encode_challenge(nonce)) {}

std::optional<ChallengeFrame> ServerHandshake::answer(Bytes hello) {
  const auto parsed = parse_hello(hello);
  if (!parsed) {
    return std::nullopt;
  }
  parsed_ = *parsed;
  keep(hello_, hello);
  return challenge_;
}

bool ServerHandshake::proves(Bytes proof) {
  return equal_secretly(client_proof(key_, hello_, challenge_), proof);
}

std::array<std::byte, kAcceptBytes> ServerHandshake::accept(const Accept& accept) const {
  const AcceptBody body = encode(accept);
  const Key proof = server_proof(key_, hello_, challenge_, body);
  std::array<std::byte, kAcceptBytes> frame{};
  std::memcpy(frame.data(), body.data(), body.size());
  std::memcpy(frame.data() + body.size(), proof.data(), proof.size());
  return frame;
}

SessionKeys ServerHandshake::keys() const { return session_keys(key_, hello_, challenge_); }

}  // namespace hpresil::transfer
