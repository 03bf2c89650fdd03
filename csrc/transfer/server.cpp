#include "transfer/server.h"

#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"

namespace hpresil::transfer {
namespace {

constexpr std::chrono::milliseconds kSlice{100};

bool is_of(const Frame& frame, const Hello& hello) {
  return frame.identity().generation == hello.generation && frame.identity().version == hello.version;
}

// Says why, so that the client asks again, or another one: without a word it takes this one for dead.
void send_away(Connection& connection, const ServerHandshake& handshake) {
  try {
    const Accept full = {.verdict = Verdict::too_many, .has_crc = false, .frame_bytes = 0, .crc = 0};
    connection.send_all(handshake.accept(full));  // it fits: little was sent before
  } catch (const Broken&) {
  }
}

}  // namespace

FrameServer::FrameServer(const ServerSettings& settings, const JobKey& key) : settings_(settings), key_(key) {
  open_libcrypto();
  door_ = std::make_unique<Door>(
      settings.door, key, refusals_, [this](Visitor visitor) { welcome(std::move(visitor)); },
      [this] { reap(); });
}

FrameServer::~FrameServer() { close(); }

std::uint64_t FrameServer::offer(std::shared_ptr<Frame> frame, std::optional<std::uint32_t> crc) {
  const std::lock_guard lock(lock_);
  expects(!closing_, "the server is closed");
  offers_[++last_offer_] = {std::move(frame), crc};
  changed_.notify_all();
  return last_offer_;
}

bool FrameServer::withdraw(std::uint64_t offer, std::int64_t timeout_ns) {
  std::unique_lock lock(lock_);
  offers_.erase(offer);
  for (const Session& session : sessions_) {
    if (session.offer == offer && !session.ended) {
      session.connection.shut();
    }
  }
  return changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                           [&] { return count_takers(offer) == 0; });
}

std::size_t FrameServer::takers(std::uint64_t offer) const {
  const std::lock_guard lock(lock_);
  return count_takers(offer);
}

std::size_t FrameServer::count_takers(std::uint64_t offer) const {
  return static_cast<std::size_t>(
      std::count_if(sessions_.begin(), sessions_.end(),
                    [&](const Session& session) { return session.offer == offer && !session.ended; }));
}

void FrameServer::close() {
  door_->close();  // from here on no session is added
  {
    const std::lock_guard lock(lock_);
    closing_ = true;
    for (const Session& session : sessions_) {
      session.connection.shut();
    }
    changed_.notify_all();
  }
  for (Session& session : sessions_) {
    session.thread.join();
  }
  const std::lock_guard lock(lock_);
  sessions_.clear();
  offers_.clear();
}

std::size_t FrameServer::clients() const {
  const std::lock_guard lock(lock_);
  return static_cast<std::size_t>(std::count_if(sessions_.begin(), sessions_.end(),
                                                [](const Session& session) { return !session.ended; }));
}

void FrameServer::welcome(Visitor visitor) {
  reap();
  Connection connection(std::move(visitor.socket));
  const std::lock_guard lock(lock_);
  if (sessions_.size() >= settings_.most_clients) {
    refusals_.count("too many clients");
    send_away(connection, visitor.handshake);
    return;
  }
  try {
    sessions_.push_back({.connection = std::move(connection),
                         .handshake = visitor.handshake,
                         .local = visitor.local,
                         .offer = 0,
                         .ended = false,
                         .thread = {}});
    Session& session = sessions_.back();
    session.thread = start_thread("hpresil-serve", [this, &session] { serve(session); });
  } catch (const std::exception&) {
    refusals_.count("no thread left");
    if (!sessions_.empty() && !sessions_.back().thread.joinable()) {
      send_away(sessions_.back().connection, visitor.handshake);
      sessions_.pop_back();
    }
  }
}

void FrameServer::reap() {
  std::list<Session> over;
  {
    const std::lock_guard lock(lock_);
    for (auto each = sessions_.begin(); each != sessions_.end();) {
      const auto next = std::next(each);
      if (each->ended) {
        over.splice(over.end(), sessions_, each);
      }
      each = next;
    }
  }
  for (Session& session : over) {
    session.thread.join();
  }
}

void FrameServer::serve(Session& session) {
  try {
    converse(session);
  } catch (const Broken& end) {
    // How a client ends that was killed or has what it wants, and one that waited for what did not come.
    if (end.reason() != "hung up" && end.reason() != "withdrawn") {
      refusals_.count(end.reason());
    }
  } catch (const std::exception&) {
    refusals_.count("defect");
  }
  // The client hears of it now. The descriptor goes when the thread is reaped: closed at once with requests
  // unread, it could take the last answer with it.
  session.connection.shut();
  const std::lock_guard lock(lock_);
  session.ended = true;
  changed_.notify_all();
}

void FrameServer::converse(Session& session) {
  session.connection.set_patience(settings_.stall_ns);
  const auto offer = find(session);
  Accept accept = {.verdict = judge(session, offer), .has_crc = false, .frame_bytes = 0, .crc = 0};
  if (offer && accept.verdict != Verdict::wrong_door) {
    accept.frame_bytes = offer->frame->grid().frame_bytes;
    accept.has_crc = offer->crc.has_value();
    accept.crc = offer->crc.value_or(0);
  }
  session.connection.send_all(session.handshake.accept(accept));
  if (accept.verdict != Verdict::welcome || session.handshake.hello().purpose == Purpose::size) {
    return;
  }
  if (session.handshake.hello().purpose == Purpose::descriptor) {
    pass(session, *offer->frame);
  }
  Serving(session.connection, session.handshake.keys(), *offer->frame, served_, settings_.stall_ns,
          settings_.idle_ns)
      .run();
}

std::optional<FrameServer::Offer> FrameServer::find(Session& session) {
  const Hello& hello = session.handshake.hello();
  std::optional<Offer> found;
  const auto look = [&] {
    for (const auto& [number, offer] : offers_) {
      if (is_of(*offer.frame, hello)) {
        found = offer;
        session.offer = number;
      }
    }
    return found.has_value() || closing_;
  };
  const std::int64_t end = monotonic_ns() + std::int64_t{hello.wait_ms} * 1'000'000;
  std::unique_lock lock(lock_);
  while (!changed_.wait_for(lock, kSlice, look) && monotonic_ns() < end && !session.connection.ended()) {
  }
  return found;
}

Verdict FrameServer::judge(const Session& session, const std::optional<Offer>& offer) const {
  const Hello& hello = session.handshake.hello();
  if (hello.purpose == Purpose::descriptor && !session.local) {
    return Verdict::wrong_door;
  }
  if (!offer) {
    return Verdict::not_here;
  }
  const bool any_grid = hello.purpose == Purpose::size;
  return any_grid || offer->frame->grid().chunk_bytes == hello.chunk_bytes ? Verdict::welcome
                                                                           : Verdict::other_chunks;
}

void FrameServer::pass(Session& session, Frame& frame) {
  for (std::size_t i = 0; i < frame.grid().count(); ++i) {
    if (await_chunk(session.connection, frame, i, settings_.idle_ns) != Presence::here) {
      throw Broken("withdrawn", "the frame will not be complete, or not in time");
    }
  }
  session.connection.send_descriptor(frame.fd());
  ++served_.passed;
}

}  // namespace hpresil::transfer
