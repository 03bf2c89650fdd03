#include "transfer/connection.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "base/clock.h"
#include "transfer/address.h"

namespace hpresil::transfer {
namespace {

constexpr std::int64_t kSliceNs = 50'000'000;
constexpr std::size_t kPieceBytes = std::size_t{1} << 20;

[[noreturn]] void broken(const std::string& doing, int error) {
  const bool late = error == EAGAIN || error == EINPROGRESS || error == ETIMEDOUT;
  const bool gone = error == ECONNRESET || error == EPIPE || error == ENOTCONN;
  const std::string reason = late ? "stalled" : gone ? "hung up" : "no connection";
  throw Broken(reason,
               doing + ": " + (late ? "nothing moved in time" : std::generic_category().message(error)));
}

void await_connected(int socket, const std::string& where, std::int64_t timeout_ns,
                     const std::function<bool()>& stopped) {
  const std::int64_t end = monotonic_ns() + timeout_ns;
  pollfd wanted = {.fd = socket, .events = POLLOUT, .revents = 0};
  while (::poll(&wanted, 1, static_cast<int>(std::min(timeout_ns, kSliceNs) / 1'000'000) + 1) <= 0) {
    if (stopped && stopped()) {
      throw Broken("stopped", "connecting to " + where + " was given up");
    }
    if (monotonic_ns() >= end) {
      broken("connecting to " + where, ETIMEDOUT);
    }
  }
  int error = 0;
  socklen_t size = sizeof(error);
  getsockopt(socket, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) {
    broken("connecting to " + where, error);
  }
}

void send_out(int socket, msghdr& message, int flags, const char* what) {
  ssize_t sent = 0;
  do {
    sent = ::sendmsg(socket, &message, flags | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent < 0) {
    broken(what, errno);
  }
}

}  // namespace

void Connection::set_patience(std::int64_t patience_ns) {
  timeval patience{};
  patience.tv_sec = static_cast<time_t>(patience_ns / 1'000'000'000);
  patience.tv_usec = std::max<suseconds_t>(patience_ns % 1'000'000'000 / 1000, 1);
  setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

bool Connection::ended() const {
  pollfd asked = {.fd = socket_.get(), .events = POLLRDHUP, .revents = 0};
  return ::poll(&asked, 1, 0) > 0;
}

void Connection::send_all(Bytes bytes, bool more_follows) {
  while (!bytes.empty()) {
    const ssize_t sent =
        ::send(socket_.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL | (more_follows ? MSG_MORE : 0));
    if (sent < 0 && errno != EINTR) {
      broken("sending", errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(std::max<ssize_t>(sent, 0)));
  }
}

void Connection::receive_all(std::span<std::byte> into) {
  while (!into.empty()) {
    const ssize_t got = ::recv(socket_.get(), into.data(), into.size(), MSG_WAITALL);
    if (got == 0) {
      throw Broken("hung up", "the other side hung up");
    }
    if (got < 0 && errno != EINTR) {
      broken("receiving", errno);
    }
    into = into.subspan(static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
  }
}

void Connection::send_file(int fd, std::uint64_t offset, std::size_t nbytes) {
  auto at = static_cast<off_t>(offset);
  const off_t end = at + static_cast<off_t>(nbytes);
  while (at < end) {
    const auto now = std::min(static_cast<std::size_t>(end - at), kPieceBytes);
    const ssize_t sent = ::sendfile(socket_.get(), fd, &at, now);
    if (sent == 0) {
      throw Broken("no bytes", "the frame ended before its chunk");
    }
    if (sent < 0 && errno != EINTR) {
      broken("sending", errno);
    }
  }
}

void Connection::send_descriptor(int fd) {
  std::byte nothing{};
  iovec part = {.iov_base = &nothing, .iov_len = 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  send_out(socket_.get(), message, 0, "passing a descriptor");
}

Fd Connection::receive_descriptor() {
  std::byte nothing{};
  iovec part = {.iov_base = &nothing, .iov_len = 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = CMSG_LEN(sizeof(int));  // room for one: the kernel closes any other
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    broken("receiving a descriptor", errno);
  }
  const cmsghdr* header = got > 0 ? CMSG_FIRSTHDR(&message) : nullptr;
  if (header == nullptr || header->cmsg_type != SCM_RIGHTS || header->cmsg_len != CMSG_LEN(sizeof(int))) {
    throw Broken("no descriptor", "the other side passed no descriptor");
  }
  int fd = -1;
  std::memcpy(&fd, CMSG_DATA(header), sizeof(int));
  return Fd(fd);
}

Connection Connection::to(const Route& route, std::int64_t timeout_ns, const std::function<bool()>& stopped) {
  const auto there = internet_address(route.host, route.port);
  Fd socket(::socket(there.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (socket.get() < 0) {
    broken("opening a socket", errno);
  }
  if (!route.from.empty()) {
    const auto here = internet_address(route.from, 0);
    if (::bind(socket.get(), here.get(), here.size) != 0) {
      broken("leaving by " + route.from, errno);
    }
  }
  if (::connect(socket.get(), there.get(), there.size) != 0 && errno != EINPROGRESS) {
    broken("connecting to " + route.name(), errno);
  }
  await_connected(socket.get(), route.name(), timeout_ns, stopped);
  const int yes = 1;
  setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
  const int flags = fcntl(socket.get(), F_GETFL);
  fcntl(socket.get(), F_SETFL, flags & ~O_NONBLOCK);
  return Connection(std::move(socket));
}

Connection Connection::to(const std::string& unix_path, std::int64_t timeout_ns) {
  const auto there = unix_address(unix_path);
  Connection made(Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)));
  made.set_patience(timeout_ns);  // connecting waits when the other side's queue is full
  if (made.fd() < 0 || ::connect(made.fd(), there.get(), there.size) != 0) {
    broken("connecting to " + unix_path, errno);
  }
  if (user_of(made.fd()) != ::geteuid()) {
    throw Broken("another user", unix_path + " is held by another user");
  }
  return made;
}

}  // namespace hpresil::transfer
