// The client's end of one connection to a server: the handshake, then chunks into their place.
#pragma once

#include <deque>

#include "transfer/connection.h"
#include "transfer/frame.h"

namespace hpresil::transfer {

// Sends hello and proof, and returns what the server says. Throws Broken: "wrong secret" for a server that
// does not hold the job's. `patience_ns` is the longest wait for each answer; one for the version to
// be offered adds to it.
struct Greeting {
  Accept accept;
  SessionKeys keys;
};
Greeting greet(Connection& connection, const JobKey& key, Hello hello, std::int64_t patience_ns);

// What a server's refusal means, in words.
std::string words(Verdict verdict);

// Several requests may be on their way; chunks come in the order in which they were asked for. Thread safety:
// one thread. Everything throws Broken when the connection is of no use any more.
class Stream {
 public:
  Stream(Connection& connection, const SessionKeys& keys, Frame& frame);

  void ask(const Chunk& chunk);
  [[nodiscard]] std::size_t outstanding() const { return asked_.size(); }

  // Receives the oldest chunk that was asked for and checks it; from its return on it is right. Waits as long
  // as the server says at least that it lives.
  struct Arrived {
    Chunk chunk;
    Seal seal;
  };
  Arrived receive();

  // Whether the server still holds what it passed; local transfers only.
  void confirm();

 private:
  void send(const Request& request);
  Answer hear();
  void receive_bytes(const Chunk& chunk, const Seal& seal);

  Connection& connection_;
  Frame& frame_;
  Sequence said_;
  Sequence heard_;
  ContentCheck check_;
  std::deque<Chunk> asked_;
};

}  // namespace hpresil::transfer
