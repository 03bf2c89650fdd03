// The CUDA runtime calls that hpresil makes, behind one interface.
//
// What decides (when to copy, when to wait, what to do after an error) is written against this
// interface. `cuda_runtime()` calls the CUDA runtime; tests/cpp/device/fake_cuda.h is scripted and needs
// no device, so that every error path runs on any machine.
//
// Errors: whatever is not noexcept throws CudaError. What ends or frees something is noexcept and drops
// errors: it may run after the context is gone.
// Threads: as the CUDA runtime: every call from any thread; the current device is the calling thread's.
// Memory: device and registered host memory alike are plain addresses (unified addressing).
#pragma once

#include <cstddef>
#include <string>

#include "base/error.h"

namespace hpresil {

enum class CudaFault {
  out_of_memory,  // an allocation did not fit; the context is well
  capture,        // the capture of a graph was invalidated; the stream is well
  refused,        // not supported here, or not permitted; the context is well
  context_lost,   // sticky: every later call in this process fails, too
  failed,         // anything else; the context is well
};

class CudaError : public NativeError {
 public:
  CudaError(CudaFault fault, const std::string& what) : NativeError(what), fault_(fault) {}
  [[nodiscard]] CudaFault fault() const { return fault_; }

 private:
  CudaFault fault_;
};

// Kernels of csrc/device/*.cu by name; each one's arguments are stated in its header.
enum class DeviceKernel { gather, hash_blocks, exclusive_or, shuffle, unshuffle, close_gate, open_gate };

struct LaunchShape {
  unsigned blocks;
  unsigned threads;  // a block
};

class CudaApi {
 public:
  // Handles of the runtime (cudaStream_t and so on); a null stream is the legacy default stream.
  using Stream = struct CudaStreamHandle*;
  using Event = struct CudaEventHandle*;
  using Graph = struct CudaGraphHandle*;  // executable

  CudaApi() = default;
  CudaApi(const CudaApi&) = delete;
  CudaApi& operator=(const CudaApi&) = delete;
  virtual ~CudaApi() = default;

  virtual int current_device() = 0;
  virtual void set_device(int index) = 0;

  virtual void* allocate(std::size_t nbytes) = 0;  // device memory
  virtual void free(void* memory) noexcept = 0;
  virtual void register_host(void* address, std::size_t nbytes) = 0;  // portable and mapped
  virtual void unregister_host(void* address) noexcept = 0;
  // The address under which the current device sees registered host memory.
  virtual void* device_address(void* registered) = 0;

  virtual Stream create_stream() = 0;  // does not synchronise with the default stream
  virtual void destroy_stream(Stream stream) noexcept = 0;
  virtual void wait_event(Stream stream, Event event) = 0;  // later work of `stream` waits, the host does not

  virtual Event create_event() = 0;  // without timing
  virtual void destroy_event(Event event) noexcept = 0;
  virtual void record(Event event, Stream stream) = 0;
  virtual bool reached(Event event) = 0;  // never waits; throws what the work before the event failed with

  virtual void copy(void* to, const void* from, std::size_t nbytes, Stream stream) = 0;
  virtual void fill(void* to, int byte, std::size_t nbytes, Stream stream) = 0;
  virtual void launch(DeviceKernel kernel, LaunchShape shape, void** arguments, Stream stream) = 0;

  // Between the two, what is queued on `stream` by this thread is recorded instead of run. `end_capture`
  // ends it in any case, also when it throws.
  virtual void begin_capture(Stream stream) = 0;
  virtual Graph end_capture(Stream stream) = 0;
  virtual void launch_graph(Graph graph, Stream stream) = 0;
  virtual void destroy_graph(Graph graph) noexcept = 0;
};

// The real one. Throws NativeError "not built with CUDA" in a build without.
CudaApi& cuda_runtime();

}  // namespace hpresil
