#include "liveness/interrupt.h"

#include <sys/socket.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>

#include "base/error.h"

namespace hpresil {
namespace {

bool listening(int fd) {
  int accepts = 0;
  socklen_t size = sizeof(accepts);
  return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &size) == 0 && accepts != 0;
}

bool connected(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof(peer);
  return getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == 0;
}

}  // namespace

InterruptList::InterruptList(const std::vector<int>& fds) {
  for (const int fd : fds) {
    struct stat status{};
    if (fstat(fd, &status) != 0) {
      fail_errno("arming an interrupt of descriptor " + std::to_string(fd), errno);
    }
    if (!S_ISSOCK(status.st_mode)) {
      fail("descriptor " + std::to_string(fd) + " is no socket, so it cannot be interrupted");
    }
    if (listening(fd)) {
      fail("descriptor " + std::to_string(fd) + " listens; only connected sockets may be interrupted");
    }
    sockets_.push_back({fd, status.st_dev, status.st_ino});
  }
}

void InterruptList::shut_down() const noexcept {
  for (const Socket& socket : sockets_) {
    struct stat status{};
    const bool same = fstat(socket.fd, &status) == 0 && S_ISSOCK(status.st_mode) &&
                      status.st_dev == socket.device && status.st_ino == socket.inode;
    if (same && !listening(socket.fd) && connected(socket.fd)) {
      shutdown(socket.fd, SHUT_RDWR);
    }
  }
}

}  // namespace hpresil
