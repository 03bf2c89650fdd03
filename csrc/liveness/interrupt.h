// Sockets that are shut down to interrupt pending collectives.
//
// A descriptor number may have been closed and given to something else between arming and firing, so
// each is remembered with its device and inode, and only a *connected* socket that is still the same
// is shut down. A listening socket is refused: shutting one down ends the process (gloo).
//
// Not guaranteed: a descriptor that is closed and reused in the microseconds between the check and
// the shutdown.
#pragma once

#include <sys/types.h>

#include <vector>

namespace hpresil {

class InterruptList {
 public:
  InterruptList() = default;

  // Throws for a descriptor that is closed, no socket, or listening.
  explicit InterruptList(const std::vector<int>& fds);

  // Shuts down both directions of every socket that is still the same.
  void shut_down() const noexcept;

 private:
  struct Socket {
    int fd;
    dev_t device;
    ino_t inode;
  };
  std::vector<Socket> sockets_;
};

}  // namespace hpresil
