// Anonymous memory files that outlive the process that wrote them, and their seals.
#pragma once

#include <cstddef>
#include <string>

namespace hpresil {

// A file descriptor that closes itself.
class Fd {
 public:
  Fd() = default;
  explicit Fd(int fd) : fd_(fd) {}
  ~Fd();
  Fd(Fd&& other) noexcept : fd_(other.release()) {}
  Fd& operator=(Fd&& other) noexcept;
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;

  [[nodiscard]] int get() const { return fd_; }
  int release();
  void close();

 private:
  int fd_ = -1;
};

// Creates a memory file of `nbytes` zeros: closed on exec, seals allowed.
Fd create_memfd(const std::string& name, std::size_t nbytes);

// A second descriptor of the same file, closed on exec.
Fd duplicate(int fd);

// Adds F_SEAL_* bits; a seal is never removed.
void add_seals(int fd, int seals);

int seals_of(int fd);

std::size_t bytes_of(int fd);

}  // namespace hpresil
