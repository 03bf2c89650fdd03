#include "memory/memfd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/error.h"

namespace hpresil {

Fd::~Fd() { close(); }

Fd& Fd::operator=(Fd&& other) noexcept {
  if (this != &other) {
    close();
    fd_ = other.release();
  }
  return *this;
}

int Fd::release() {
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

void Fd::close() {
  if (fd_ >= 0) {
    ::close(fd_);
    fd_ = -1;
  }
}

Fd create_memfd(const std::string& name, std::size_t nbytes) {
  Fd fd(memfd_create(name.c_str(), MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (fd.get() < 0) {
    fail_errno("memfd_create of '" + name + "'", errno);
  }
  if (nbytes > 0 && ftruncate(fd.get(), static_cast<off_t>(nbytes)) != 0) {
    fail_errno("sizing memfd '" + name + "' to " + std::to_string(nbytes) + " bytes", errno);
  }
  return fd;
}

Fd duplicate(int fd) {
  Fd copy(fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (copy.get() < 0) {
    fail_errno("duplicating descriptor " + std::to_string(fd), errno);
  }
  return copy;
}

void add_seals(int fd, int seals) {
  if (fcntl(fd, F_ADD_SEALS, seals) != 0) {
    fail_errno("sealing descriptor " + std::to_string(fd), errno);
  }
}

int seals_of(int fd) {
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) {
    fail_errno("descriptor " + std::to_string(fd) + " has no seals, so it is no memory file", errno);
  }
  return seals;
}

std::size_t bytes_of(int fd) {
  struct stat status{};
  if (fstat(fd, &status) != 0) {
    fail_errno("fstat of descriptor " + std::to_string(fd), errno);
  }
  return static_cast<std::size_t>(status.st_size);
}

}  // namespace hpresil
