#include "memory/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <string>
#include <utility>

#include "base/error.h"
#include "memory/memfd.h"

namespace hpresil {

Mapping::Mapping(int fd, std::size_t nbytes, bool writable, bool populate)
    : nbytes_(nbytes), writable_(writable) {
  expects(nbytes > 0, "a mapping needs at least one byte");
  // Touching a page behind the end of the file would be a SIGBUS later.
  const std::size_t there = bytes_of(fd);
  if (there < nbytes) {
    fail("descriptor " + std::to_string(fd) + " holds " + std::to_string(there) + " bytes, cannot map " +
         std::to_string(nbytes));
  }
  const int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
  void* mapped = mmap(nullptr, nbytes, protection, MAP_SHARED | (populate ? MAP_POPULATE : 0), fd, 0);
  if (mapped == MAP_FAILED) {
    fail_errno("mapping " + std::to_string(nbytes) + " bytes of descriptor " + std::to_string(fd), errno);
  }
  data_ = static_cast<std::byte*>(mapped);
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), nbytes_(other.nbytes_), writable_(other.writable_) {}

Mapping::~Mapping() { close(); }

void Mapping::close() {
  if (data_ != nullptr) {
    munmap(data_, nbytes_);
    data_ = nullptr;
  }
}

}  // namespace hpresil
