#include "transfer/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "transfer/connection.h"

namespace hpresil::transfer {
namespace {

constexpr int kQueue = 128;

Fd listening(const SocketAddress& address, const std::string& where) {
  Fd socket(::socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int yes = 1;
  if (address.family() != AF_UNIX) {
    setsockopt(socket.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  }
  if (socket.get() < 0 || ::bind(socket.get(), address.get(), address.size) != 0 ||
      ::listen(socket.get(), kQueue) != 0) {
    fail_errno("listening at " + where, errno);
  }
  return socket;
}

}  // namespace

SocketAddress internet_address(const std::string& host, int port) {
  SocketAddress address{};
  auto* four = reinterpret_cast<sockaddr_in*>(&address.storage);
  auto* six = reinterpret_cast<sockaddr_in6*>(&address.storage);
  expects(port >= 0 && port <= 65535, "a port is 0 to 65535");
  if (inet_pton(AF_INET, host.c_str(), &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons(static_cast<std::uint16_t>(port));
    address.size = sizeof(sockaddr_in);
  } else if (inet_pton(AF_INET6, host.c_str(), &six->sin6_addr) == 1) {
    six->sin6_family = AF_INET6;
    six->sin6_port = htons(static_cast<std::uint16_t>(port));
    address.size = sizeof(sockaddr_in6);
  } else {
    fail("'" + host + "' is no IPv4 or IPv6 address; names are looked up by the caller");
  }
  return address;
}

SocketAddress unix_address(const std::string& path) {
  SocketAddress address{};
  auto* local = reinterpret_cast<sockaddr_un*>(&address.storage);
  if (path.empty() || path.size() >= sizeof(local->sun_path)) {
    fail("the path of a Unix socket has 1 to 107 characters, not " + std::to_string(path.size()));
  }
  local->sun_family = AF_UNIX;
  std::memcpy(local->sun_path, path.data(), path.size());
  address.size = sizeof(sockaddr_un);
  return address;
}

std::string Route::name() const {
  const std::string there =
      (host.find(':') == std::string::npos ? host : "[" + host + "]") + ":" + std::to_string(port);
  return from.empty() ? there : from + " -> " + there;
}

Fd listen_at(const std::string& host, int port) {
  return listening(internet_address(host, port), host + ":" + std::to_string(port));
}

Fd listen_at(const std::string& unix_path) {
  ::unlink(unix_path.c_str());  // what an earlier process left there
  return listening(unix_address(unix_path), unix_path);
}

int port_of(int socket) {
  SocketAddress address{};
  address.size = sizeof(address.storage);
  if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address.storage), &address.size) != 0) {
    fail_errno("asking for a socket's address", errno);
  }
  return ntohs(address.family() == AF_INET6
                   ? reinterpret_cast<const sockaddr_in6*>(&address.storage)->sin6_port
                   : reinterpret_cast<const sockaddr_in*>(&address.storage)->sin_port);
}

unsigned user_of(int socket) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    fail_errno("asking for a socket's peer", errno);
  }
  return peer.uid;
}

}  // namespace hpresil::transfer
