#include "transfer/door.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "transfer/connection.h"

namespace hpresil::transfer {
namespace {

constexpr int kAtOnce = 64;
constexpr int kBeatMs = 100;
constexpr int kStarvedMs = 20;

void make_blocking(int socket) {
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) & ~O_NONBLOCK);
  const int yes = 1;
  setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));  // on a Unix socket it does nothing
}

}  // namespace

Door::Door(const DoorSettings& settings, const JobKey& key, Refusals& refusals,
           std::function<void(Visitor)> welcome, std::function<void()> beat)
    : settings_(settings),
      key_(key),
      refusals_(refusals),
      welcome_(std::move(welcome)),
      beat_(std::move(beat)),
      stop_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      thread_(open()) {}

std::thread Door::open() {
  expects(stop_.get() >= 0, "no descriptor is left for a door");
  expects(settings_.most_waiting >= 1, "a door has room for one at least");
  if (!settings_.host.empty()) {
    internet_ = listen_at(settings_.host, settings_.port);
    port_ = port_of(internet_.get());
  }
  if (!settings_.unix_path.empty()) {
    local_ = listen_at(settings_.unix_path);
  }
  return start_thread("hpresil-door", [this] { run(); });
}

Door::~Door() { close(); }

void Door::close() {
  if (thread_.joinable()) {
    eventfd_write(stop_.get(), 1);
    thread_.join();
    strangers_.clear();
    internet_.close();
    local_.close();
    if (!settings_.unix_path.empty()) {
      ::unlink(settings_.unix_path.c_str());
    }
  }
}

void Door::run() {
  std::vector<pollfd> watched;
  while (true) {
    watched.clear();
    for (const int fd : {stop_.get(), internet_.get(), local_.get()}) {
      watched.push_back({.fd = fd, .events = POLLIN, .revents = 0});  // poll skips what is negative
    }
    for (const Stranger& stranger : strangers_) {
      watched.push_back({.fd = stranger.socket.get(), .events = POLLIN, .revents = 0});
    }
    (void)::poll(watched.data(), watched.size(), kBeatMs);
    if (watched[0].revents != 0) {
      return;
    }
    for (std::size_t i = 3; i < watched.size(); ++i) {
      if (watched[i].revents != 0) {
        hear(watched[i].fd);
      }
    }
    expire();
    beat_();
    if (watched[1].revents != 0) {
      let_in(internet_, false);
    }
    if (watched[2].revents != 0) {
      let_in(local_, true);
    }
    waiting_count_ = strangers_.size();
  }
}

void Door::let_in(const Fd& listener, bool local) {
  for (int i = 0; i < kAtOnce; ++i) {
    Fd socket(::accept4(listener.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.get() < 0) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        refusals_.count("no descriptor left");
        if (!strangers_.empty()) {
          turn_away(strangers_.begin(), "crowded out");
        }
        (void)::poll(nullptr, 0, kStarvedMs);  // it stays readable: without a pause this would be a busy loop
      }
      return;
    }
    try {
      admit(std::move(socket), local);
    } catch (const std::exception&) {
      refusals_.count("no memory left");
    }
  }
}

void Door::admit(Fd socket, bool local) {
  if (local && user_of(socket.get()) != ::geteuid()) {
    refusals_.count("another user");
    return;
  }
  if (strangers_.size() >= settings_.most_waiting) {
    turn_away(strangers_.begin(), "crowded out");
  }
  Nonce nonce{};
  fill_random(nonce);
  strangers_.push_back({.socket = std::move(socket),
                        .handshake = ServerHandshake(key_, nonce),
                        .local = local,
                        .until_ns = monotonic_ns() + settings_.handshake_ns,
                        .challenged = false,
                        .filled = 0,
                        .buffer = {}});
}

void Door::hear(int fd) {
  const auto found = std::find_if(strangers_.begin(), strangers_.end(),
                                  [&](const Stranger& each) { return each.socket.get() == fd; });
  if (found == strangers_.end()) {
    return;
  }
  try {
    if (!read_some(*found, found->challenged ? kProofBytes : kHelloBytes)) {
      turn_away(found, "left early");
    } else if (!found->challenged && found->filled == kHelloBytes) {
      challenge(found);
    } else if (found->challenged && found->filled == kProofBytes) {
      judge(found);
    }
  } catch (const std::exception&) {
    turn_away(found, "no memory left");
  }
}

bool Door::read_some(Stranger& stranger, std::size_t wanted) {
  const ssize_t got =
      ::recv(stranger.socket.get(), stranger.buffer.data() + stranger.filled, wanted - stranger.filled, 0);
  if (got > 0) {
    stranger.filled += static_cast<std::size_t>(got);
  }
  return got > 0 || (got < 0 && (errno == EAGAIN || errno == EINTR));
}

void Door::challenge(Place stranger) {
  const auto challenge = stranger->handshake.answer(stranger->buffer);
  if (!challenge) {
    turn_away(stranger, "malformed");
    return;
  }
  // It fits: this is the first thing that is sent.
  if (::send(stranger->socket.get(), challenge->data(), challenge->size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(challenge->size())) {
    turn_away(stranger, "left early");
    return;
  }
  stranger->challenged = true;
  stranger->filled = 0;
}

void Door::judge(Place stranger) {
  if (!stranger->handshake.proves(Bytes(stranger->buffer).first(kProofBytes))) {
    turn_away(stranger, "wrong secret");
    return;
  }
  make_blocking(stranger->socket.get());
  Visitor visitor{std::move(stranger->socket), stranger->handshake, stranger->local};
  welcome_(std::move(visitor));
  strangers_.erase(stranger);  // last: whoever catches an error of the line above turns it away
}

void Door::turn_away(Place stranger, const char* reason) {
  refusals_.count(reason);
  strangers_.erase(stranger);
}

void Door::expire() {
  const std::int64_t now = monotonic_ns();
  while (!strangers_.empty() && strangers_.front().until_ns <= now) {
    turn_away(strangers_.begin(), "silent");
  }
}

}  // namespace hpresil::transfer
