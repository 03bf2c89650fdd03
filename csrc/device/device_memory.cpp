#include "device/device_memory.h"

#include <fcntl.h>

#include <cerrno>
#include <limits>

namespace hpresil {
namespace {

// What `nbytes` take up on a device that can pass them on.
std::size_t whole(DriverApi& driver, int device, std::size_t nbytes) {
  driver.require_passing(device);
  const std::size_t unit = driver.granularity(device);
  expects(nbytes > 0, "device memory needs at least one byte");
  expects(unit > 0 && nbytes <= std::numeric_limits<std::size_t>::max() - unit,
          "so many bytes cannot be rounded up to the device's granularity");
  return (nbytes + unit - 1) / unit * unit;
}

Undo entered(DriverApi& driver, int device) {
  driver.enter(device);
  return Undo([&driver, device] { driver.leave(device); });
}

}  // namespace

HeldMemory::HeldMemory(DriverApi& driver, int device, std::size_t nbytes)
    : driver_(driver),
      nbytes_(whole(driver, device, nbytes)),
      block_(driver.create(device, nbytes_)),
      release_([&driver, block = block_] { driver.release(block); }) {}

Fd HeldMemory::export_fd() const {
  Fd fd = driver_.export_block(block_);
  // CUDA does not say whether it is; a program started later must not keep the memory alive.
  if (fcntl(fd.get(), F_SETFD, FD_CLOEXEC) != 0) {
    fail_errno("marking an exported descriptor to be closed on exec", errno);
  }
  return fd;
}

MappedDeviceMemory::MappedDeviceMemory(DriverApi& driver, int device, int fd, std::size_t nbytes)
    : nbytes_(whole(driver, device, nbytes)),
      context_(entered(driver, device)),
      address_(driver.reserve(nbytes_)),
      range_([&driver, at = address_, size = nbytes_] { driver.give_back(at, size); }) {
  const DriverApi::Block block = driver.import_block(fd);
  const Undo imported([&driver, block] { driver.release(block); });  // the mapping refers to it by itself
  driver.map(address_, nbytes_, block);
  mapping_ = Undo([&driver, device, at = address_, size = nbytes_] {
    driver.wait_idle(device);
    driver.unmap(at, size);
  });
  driver.allow(device, address_, nbytes_);
}

}  // namespace hpresil
