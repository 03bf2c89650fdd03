// Device memory that outlives the process which uses it: one process holds it, another one maps it.
//
// Invariants:
// 1. The memory is there while anything refers to it: a HeldMemory, an exported descriptor that is open
//    anywhere (on its way through a socket, too), a MappedDeviceMemory. Which of them ends first, and how,
//    does not matter.
// 2. A constructor that throws has undone what it did.
// 3. Nothing here looks at the contents. New memory is not promised to be zero.
//
// Threads: both are immutable once made; every call from any thread. The DriverApi must outlive them.
#pragma once

#include <functional>
#include <utility>

#include "device/driver_api.h"

namespace hpresil {

// What has to be undone, once.
class Undo {
 public:
  Undo() = default;
  explicit Undo(std::function<void()> how) : how_(std::move(how)) {}
  Undo(Undo&& other) noexcept : how_(std::exchange(other.how_, nullptr)) {}
  Undo& operator=(Undo&& other) noexcept {
    how_.swap(other.how_);  // what was to be undone is, when `other` ends
    return *this;
  }
  ~Undo() {
    if (how_) {
      how_();
    }
  }

 private:
  std::function<void()> how_;
};

// Device memory without an address. Creates no context, so that no error on the device reaches the holder.
class HeldMemory {
 public:
  // At least `nbytes`, rounded up to the device's granularity. Throws CudaError: refused (this device cannot
  // pass memory) or out_of_memory among others.
  HeldMemory(DriverApi& driver, int device, std::size_t nbytes);

  [[nodiscard]] std::size_t bytes() const { return nbytes_; }  // rounded
  // A new descriptor, closed on exec.
  [[nodiscard]] Fd export_fd() const;

 private:
  DriverApi& driver_;
  std::size_t nbytes_;
  DriverApi::Block block_;
  Undo release_;
};

// Exported memory at an address, to be read and written by this process's kernels on `device`.
//
// The destructor waits for the device first: what is queued may still use the memory.
class MappedDeviceMemory {
 public:
  // `fd` of HeldMemory::export_fd, which stays the caller's, and the `nbytes` it was made with. Keeps the
  // device's primary context.
  MappedDeviceMemory(DriverApi& driver, int device, int fd, std::size_t nbytes);

  [[nodiscard]] std::byte* data() const { return address_; }
  [[nodiscard]] std::size_t bytes() const { return nbytes_; }  // rounded

 private:
  std::size_t nbytes_;
  Undo context_;  // this and what follows is undone from the last to the first
  std::byte* address_;
  Undo range_;
  Undo mapping_;
};

}  // namespace hpresil
