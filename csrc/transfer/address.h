// Addresses of sockets, from text: numeric IPv4 and IPv6, and paths of Unix sockets.
#pragma once

#include <sys/socket.h>

#include <string>

namespace hpresil::transfer {

struct SocketAddress {
  sockaddr_storage storage;
  socklen_t size;

  [[nodiscard]] const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  [[nodiscard]] int family() const { return storage.ss_family; }
};

// Throw NativeError for what is no such address.
SocketAddress internet_address(const std::string& host, int port);
SocketAddress unix_address(const std::string& path);

}  // namespace hpresil::transfer
