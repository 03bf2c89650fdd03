// A connected socket whose every wait ends: after `patience` without a byte, or when another thread shuts it.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <functional>
#include <string>

#include "base/error.h"
#include "memory/memfd.h"
#include "transfer/libcrypto.h"

namespace hpresil::transfer {

// A connection is of no use any more. `reason` is one of few words, to be counted by; what() says it in full.
class Broken : public NativeError {
 public:
  Broken(std::string reason, const std::string& what) : NativeError(what), reason_(std::move(reason)) {}
  [[nodiscard]] const std::string& reason() const { return reason_; }

 private:
  std::string reason_;
};

// An address of this machine to leave by ("" for the kernel's choice), and where to go.
struct Route {
  std::string from;
  std::string host;
  int port;

  [[nodiscard]] std::string name() const;
};

// Thread safety: one user; shut() is for any thread while the object lives. SIGPIPE must be blocked or
// ignored in the thread that sends files, as it is in threads of the core.
class Connection {
 public:
  Connection() = default;
  explicit Connection(Fd socket) : socket_(std::move(socket)) {}

  // Connects within `timeout_ns`, or until `stopped` says so. Throws Broken. Addresses are numbers, not
  // names.
  static Connection to(const Route& route, std::int64_t timeout_ns, const std::function<bool()>& stopped);
  static Connection to(const std::string& unix_path, std::int64_t timeout_ns);

  // The longest wait for one more byte in either direction.
  void set_patience(std::int64_t patience_ns);

  // All of these throw Broken: "hung up", "stalled", or the system's error.
  void send_all(Bytes bytes, bool more_follows = false);
  void receive_all(std::span<std::byte> into);
  void send_file(int fd, std::uint64_t offset, std::size_t nbytes);

  // Passes a descriptor over a Unix socket, behind one byte.
  void send_descriptor(int fd);
  Fd receive_descriptor();

  [[nodiscard]] int fd() const { return socket_.get(); }

  // Whether the other side has hung up, or shut() was called.
  [[nodiscard]] bool ended() const;

  // Ends whatever the user waits for.
  void shut() const { (void)::shutdown(socket_.get(), SHUT_RDWR); }

 private:
  Fd socket_;
};

// A socket that listens at a numeric address of this machine; port 0 takes a free one. Throws NativeError.
Fd listen_at(const std::string& host, int port);
Fd listen_at(const std::string& unix_path);
int port_of(int socket);

// The user at the other end of a Unix socket.
unsigned user_of(int socket);

}  // namespace hpresil::transfer
