// One connection of a client that has proved itself, from its acceptance to its end: chunks are sent as they
// are asked for, each once it is here.
#pragma once

#include <atomic>

#include "transfer/connection.h"
#include "transfer/frame.h"

namespace hpresil::transfer {

// Waits for a chunk up to `timeout_ns`, or until the connection ends.
Presence await_chunk(const Connection& connection, Frame& frame, std::size_t index, std::int64_t timeout_ns);

struct ServedBytes {
  std::atomic<std::uint64_t> sent{0};  // of chunks that were begun, over TCP
  std::atomic<std::uint64_t> chunks{0};
  std::atomic<std::uint64_t> passed{0};  // descriptors
};

// Thread safety: one thread. Everything here throws Broken when the connection ends or must end.
class Serving {
 public:
  // `stall_ns`: the longest wait for the client; `idle_ns`: the longest between two of its requests.
  Serving(Connection& connection, const SessionKeys& keys, Frame& frame, ServedBytes& counters,
          std::int64_t stall_ns, std::int64_t idle_ns);

  // Returns when the client hangs up between two requests, or the frame will never be complete.
  void run();

 private:
  bool hear(Request& request);
  bool send_chunk(const Request& request);
  void say(const Answer& answer, bool more_follows);

  Connection& connection_;
  Frame& frame_;
  ServedBytes& counters_;
  std::int64_t stall_ns_;
  std::int64_t idle_ns_;
  Sequence heard_;
  Sequence said_;
  ContentCheck check_;
};

}  // namespace hpresil::transfer
