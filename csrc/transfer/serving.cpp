#include "transfer/serving.h"

#include <algorithm>
#include <cstring>

#include "base/clock.h"

namespace hpresil::transfer {

Presence await_chunk(const Connection& connection, Frame& frame, std::size_t index, std::int64_t timeout_ns) {
  constexpr std::int64_t kSliceNs = 100'000'000;
  const std::int64_t end = monotonic_ns() + timeout_ns;
  Presence presence = frame.wait_for(index, 0);
  while (presence == Presence::coming && monotonic_ns() < end && !connection.ended()) {
    presence = frame.wait_for(index, std::min(kSliceNs, end - monotonic_ns()));
  }
  return presence;
}

Serving::Serving(Connection& connection, const SessionKeys& keys, Frame& frame, ServedBytes& counters,
                 std::int64_t stall_ns, std::int64_t idle_ns)
    : connection_(connection),
      frame_(frame),
      counters_(counters),
      stall_ns_(stall_ns),
      idle_ns_(idle_ns),
      heard_(keys.client_writes),
      said_(keys.server_writes),
      check_(frame.key(), frame.identity(), frame.grid()) {}

void Serving::run() {
  Request request{};
  connection_.set_patience(idle_ns_);
  while (hear(request)) {
    if (request.wish == Wish::still_valid) {
      say({.status = Status::coming, .nbytes = 0, .offset = 0, .origin = {}, .content = {}}, false);
    } else if (!send_chunk(request)) {
      return;
    }
  }
}

bool Serving::hear(Request& request) {
  std::array<std::byte, kRequestBytes> frame{};
  try {
    connection_.receive_all(std::span(frame).first(1));
  } catch (const Broken& end) {
    if (end.reason() == "hung up") {
      return false;  // between two requests: this is how a client ends
    }
    throw;
  }
  connection_.receive_all(std::span(frame).subspan(1));
  const Bytes body = Bytes(frame).first(sizeof(RequestBody));
  if (!equal_secretly(heard_.next(body), Bytes(frame).subspan(sizeof(RequestBody)))) {
    throw Broken("bad request", "a request's check does not fit its place on this connection");
  }
  const auto parsed = parse_request(body);
  if (!parsed) {
    throw Broken("bad request", "a request is malformed");
  }
  request = *parsed;
  return true;
}

bool Serving::send_chunk(const Request& request) {
  const auto index = frame_.grid().index_of(request.offset, request.nbytes);
  if (!index) {
    throw Broken("bad request", "a request is for no chunk of the frame");
  }
  Answer answer = {.status = Status::wait,
                   .nbytes = request.nbytes,
                   .offset = request.offset,
                   .origin = {},
                   .content = {}};
  Presence presence = await_chunk(connection_, frame_, *index, stall_ns_ / 4);
  while (presence == Presence::coming) {
    say(answer, false);  // the client sees that this side lives; one that is gone ends this
    presence = await_chunk(connection_, frame_, *index, stall_ns_ / 4);
  }
  if (presence == Presence::never) {
    answer.status = Status::gone;
    say(answer, false);
    return false;
  }
  const Seal seal = frame_.seal_of(*index, check_);
  answer.status = Status::coming;
  answer.origin = seal.origin;
  answer.content = seal.content;
  say(answer, true);
  counters_.sent += request.nbytes;  // before it goes: who has received it finds it counted
  ++counters_.chunks;
  connection_.send_file(frame_.fd(), frame_.begin() + request.offset, request.nbytes);
  return true;
}

void Serving::say(const Answer& answer, bool more_follows) {
  const AnswerBody body = encode(answer);
  const Tag tag = said_.next(body);
  std::array<std::byte, kAnswerBytes> frame{};
  std::memcpy(frame.data(), body.data(), body.size());
  std::memcpy(frame.data() + body.size(), tag.data(), tag.size());
  connection_.send_all(frame, more_follows);
}

}  // namespace hpresil::transfer
