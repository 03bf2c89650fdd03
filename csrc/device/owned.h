// What is taken from the CUDA runtime and given back by itself.
//
// Each is owned by one object and moves. Giving back never throws, and does nothing useful after the
// context is gone. The CudaApi has to outlive them.
#pragma once

#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>
#include <utility>

#include "device/cuda_api.h"

namespace hpresil {

template <typename Handle, void (CudaApi::*kGiveBack)(Handle) noexcept>
class Owned {
 public:
  Owned() = default;
  Owned(CudaApi& api, Handle handle) : api_(&api), handle_(handle) {}
  Owned(Owned&& other) noexcept : api_(other.api_), handle_(std::exchange(other.handle_, nullptr)) {}
  Owned& operator=(Owned&& other) noexcept {
    if (this != &other) {
      reset();
      api_ = other.api_;
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { reset(); }

  [[nodiscard]] Handle get() const { return handle_; }
  explicit operator bool() const { return handle_ != nullptr; }
  // Nobody gives it back from here on: the device may still use it, for ever if it hangs.
  void abandon() noexcept { handle_ = nullptr; }
  void reset() noexcept {
    if (handle_ != nullptr) {
      (api_->*kGiveBack)(std::exchange(handle_, nullptr));
    }
  }

 private:
  CudaApi* api_ = nullptr;
  Handle handle_ = nullptr;
};

using OwnedMemory = Owned<void*, &CudaApi::free>;
using OwnedRegistration = Owned<void*, &CudaApi::unregister_host>;
using OwnedStream = Owned<CudaApi::Stream, &CudaApi::destroy_stream>;
using OwnedEvent = Owned<CudaApi::Event, &CudaApi::destroy_event>;
using OwnedGraph = Owned<CudaApi::Graph, &CudaApi::destroy_graph>;

// Host memory in pages of its own, so that it can be registered whatever else is.
struct FreePages {
  void operator()(void* memory) const noexcept { std::free(memory); }
};
using HostPages = std::unique_ptr<void, FreePages>;

inline HostPages allocate_pages(std::size_t nbytes) {
  constexpr std::size_t kPageBytes = 4096;
  void* memory = std::aligned_alloc(kPageBytes, (nbytes + kPageBytes - 1) / kPageBytes * kPageBytes);
  expects(memory != nullptr || nbytes == 0, "no host memory left");
  return HostPages(memory);
}

// Polls, so that a device that hangs cannot hang the thread, too. False at the deadline; throws what the
// work before the event failed with.
inline bool wait_reached(CudaApi& api, CudaApi::Event event, double timeout_s) {
  constexpr std::chrono::microseconds kPoll{50};
  const auto limit = std::chrono::duration<double>(timeout_s);
  const auto begun = std::chrono::steady_clock::now();
  while (!api.reached(event)) {
    if (std::chrono::steady_clock::now() - begun >= limit) {
      return false;
    }
    std::this_thread::sleep_for(kPoll);
  }
  return true;
}

// Makes a device current for the calling thread, and the one before again at the end.
class CurrentDevice {
 public:
  CurrentDevice(CudaApi& api, int index) : api_(api), before_(api.current_device()) {
    if (before_ != index) {
      api_.set_device(index);
      changed_ = true;
    }
  }
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice() {
    if (changed_) {
      try {
        api_.set_device(before_);
      } catch (const NativeError&) {  // the context is gone, and whoever calls next is told so
      }
    }
  }

 private:
  CudaApi& api_;
  int before_;
  bool changed_ = false;
};

}  // namespace hpresil
