#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>

#include "device/driver_api.h"

namespace hpresil {
namespace {

constexpr std::size_t kGranularity = 2U << 20;  // that of devices, so that sizes are rounded the same
constexpr int kKeepsItsSize = F_SEAL_SHRINK | F_SEAL_GROW;

// A block is a descriptor of a memory file. Its size is sealed: a mapping of it cannot lose its pages.
class HostDriver final : public DriverApi {
 public:
  void require_passing(int device) override {
    expects(device == kHostDevice, "host memory belongs to no device");
  }
  std::size_t granularity(int /*device*/) override { return kGranularity; }

  Block create(int /*device*/, std::size_t nbytes) override {
    Fd file = create_memfd("held", nbytes);
    add_seals(file.get(), kKeepsItsSize);
    return static_cast<Block>(file.release());
  }
  Fd export_block(Block block) override { return duplicate(static_cast<int>(block)); }
  Block import_block(int fd) override {
    expects((seals_of(fd) & kKeepsItsSize) == kKeepsItsSize, "this memory file may change its size");
    return static_cast<Block>(duplicate(fd).release());
  }
  void release(Block block) noexcept override { ::close(static_cast<int>(block)); }

  std::byte* reserve(std::size_t nbytes) override { return place(nullptr, nbytes, MAP_NORESERVE, -1); }
  void give_back(std::byte* address, std::size_t nbytes) noexcept override { munmap(address, nbytes); }
  void map(std::byte* address, std::size_t nbytes, Block block) override {
    const int fd = static_cast<int>(block);
    expects(bytes_of(fd) >= nbytes, "the block is smaller than what is to be mapped");
    place(address, nbytes, MAP_FIXED, fd);
  }
  void unmap(std::byte* address, std::size_t nbytes) noexcept override {
    constexpr int kNothing = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED;
    if (mmap(address, nbytes, PROT_NONE, kNothing, -1, 0) == MAP_FAILED) {
      mprotect(address, nbytes, PROT_NONE);  // the block stays until the range is given back
    }
  }
  void allow(int /*device*/, std::byte* address, std::size_t nbytes) override {
    if (mprotect(address, nbytes, PROT_READ | PROT_WRITE) != 0) {
      fail_errno("allowing access to " + std::to_string(nbytes) + " bytes", errno);
    }
  }

  void enter(int /*device*/) override {}
  void leave(int /*device*/) noexcept override {}
  void wait_idle(int /*device*/) noexcept override {}

 private:
  // As on a device, nothing can be read or written before `allow`.
  static std::byte* place(std::byte* where, std::size_t nbytes, int flags, int fd) {
    flags |= fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
    void* const mapped = mmap(where, nbytes, PROT_NONE, flags, fd, 0);
    if (mapped == MAP_FAILED) {
      fail_errno("mapping " + std::to_string(nbytes) + " bytes", errno);
    }
    return static_cast<std::byte*>(mapped);
  }
};

}  // namespace

DriverApi& host_driver() {
  static HostDriver driver;
  return driver;
}

}  // namespace hpresil
