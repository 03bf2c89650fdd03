// Who may open a connection: whoever proves to hold the job's secret, in both directions, before any byte of
// a frame moves. Pure: bytes in, bytes out; the random numbers are given.
//
// Each side answers the other's fresh number, so nothing recorded earlier is of use. The proofs cover the
// whole exchange, with generation, version and what is wanted, and differ by role, so one side's proof
// cannot be turned back at it. The client proves first: a stranger learns nothing. From the exchange follow
// two keys, one a direction, with which every later message is checked in its place in the sequence.
#pragma once

#include <optional>
#include <string>

#include "transfer/libcrypto.h"
#include "transfer/wire.h"

namespace hpresil::transfer {

// The key that stands for the job in transfers: derived from its secret (16 … 4096 bytes) and its name. The
// secret itself is not kept.
class JobKey {
 public:
  JobKey(Bytes secret, const std::string& job);
  ~JobKey();
  JobKey(const JobKey&) = default;
  JobKey& operator=(const JobKey&) = default;

  // A key for one use; different labels or contexts give independent keys.
  [[nodiscard]] Key derive(const std::string& label, Bytes context) const;

 private:
  Key key_;
};

struct SessionKeys {
  Key client_writes;
  Key server_writes;
};

// One side's end of the sequence of messages after the handshake: each is checked together with its number,
// so what is repeated, left out, moved or of another connection does not fit. Thread safety: none.
class Sequence {
 public:
  explicit Sequence(const Key& key) : check_(key) {}

  // The check of the next message, to be sent behind it or compared with what came.
  Tag next(Bytes message);

 private:
  Gmac check_;
  std::uint64_t sent_ = 0;
};

class ClientHandshake {
 public:
  // `hello.nonce` must be fresh.
  ClientHandshake(const JobKey& key, const Hello& hello);

  [[nodiscard]] const HelloFrame& hello() const { return hello_; }

  // The proof to send, or nothing for what is no challenge.
  std::optional<Key> answer(Bytes challenge);

  // What the server said, or nothing: it does not hold the secret, or a bit was changed.
  std::optional<Accept> accept(Bytes frame);

  [[nodiscard]] SessionKeys keys() const;

 private:
  JobKey key_;
  HelloFrame hello_;
  ChallengeFrame challenge_{};
};

class ServerHandshake {
 public:
  // `nonce` must be fresh.
  ServerHandshake(const JobKey& key, const Nonce& nonce);

  // The challenge to send, or nothing for what is no hello.
  std::optional<ChallengeFrame> answer(Bytes hello);

  // Whether the client holds the secret.
  bool proves(Bytes proof);

  // The frame to send once it does.
  [[nodiscard]] std::array<std::byte, kAcceptBytes> accept(const Accept& accept) const;

  [[nodiscard]] const Hello& hello() const { return parsed_; }
  [[nodiscard]] SessionKeys keys() const;

 private:
  JobKey key_;
  Hello parsed_{};
  HelloFrame hello_{};
  ChallengeFrame challenge_;
};

}  // namespace hpresil::transfer
