// The interface over the CUDA runtime, call for call.
#include <array>

#include "device/cuda_api.h"
#include "device/cuda_error.h"
#include "device/kernels.h"

namespace hpresil {
namespace {

CudaFault fault_of(cudaError_t status) {
  switch (status) {
    case cudaErrorMemoryAllocation:
      return CudaFault::out_of_memory;
    case cudaErrorStreamCaptureInvalidated:
    case cudaErrorStreamCaptureUnsupported:
    case cudaErrorStreamCaptureUnmatched:
    case cudaErrorStreamCaptureUnjoined:
    case cudaErrorStreamCaptureIsolation:
    case cudaErrorStreamCaptureWrongThread:
    case cudaErrorStreamCaptureImplicit:
    case cudaErrorStreamCaptureMerge:
      return CudaFault::capture;
    case cudaErrorNotSupported:
    case cudaErrorNotPermitted:
    case cudaErrorInvalidValue:
    case cudaErrorHostMemoryAlreadyRegistered:
      return CudaFault::refused;
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorIllegalInstruction:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContextIsDestroyed:
    case cudaErrorCudartUnloading:
      return CudaFault::context_lost;
    default:
      return CudaFault::failed;
  }
}

void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) {
    static_cast<void>(cudaGetLastError());  // so that the next call does not report it again
    throw CudaError(fault_of(status),
                    std::string(call) + ": " + cudaGetErrorName(status) + ": " + cudaGetErrorString(status));
  }
}

#define TRY(call) check((call), #call)

// The handles are the runtime's own pointers under names that need no CUDA header.
cudaStream_t real(CudaApi::Stream stream) { return reinterpret_cast<cudaStream_t>(stream); }
cudaEvent_t real(CudaApi::Event event) { return reinterpret_cast<cudaEvent_t>(event); }
cudaGraphExec_t real(CudaApi::Graph graph) { return reinterpret_cast<cudaGraphExec_t>(graph); }

class CudaRuntime final : public CudaApi {
 public:
  int current_device() override {
    int index = 0;
    TRY(cudaGetDevice(&index));
    return index;
  }
  void set_device(int index) override { TRY(cudaSetDevice(index)); }

  void* allocate(std::size_t nbytes) override {
    void* memory = nullptr;
    TRY(cudaMalloc(&memory, nbytes));
    return memory;
  }
  void free(void* memory) noexcept override { drop(cudaFree(memory)); }
  void register_host(void* address, std::size_t nbytes) override {
    TRY(cudaHostRegister(address, nbytes, cudaHostRegisterPortable | cudaHostRegisterMapped));
  }
  void unregister_host(void* address) noexcept override { drop(cudaHostUnregister(address)); }
  void* device_address(void* registered) override {
    void* address = nullptr;
    TRY(cudaHostGetDevicePointer(&address, registered, 0));
    return address;
  }

  Stream create_stream() override {
    cudaStream_t stream = nullptr;
    TRY(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    return reinterpret_cast<Stream>(stream);
  }
  void destroy_stream(Stream stream) noexcept override { drop(cudaStreamDestroy(real(stream))); }
  void wait_event(Stream stream, Event event) override {
    TRY(cudaStreamWaitEvent(real(stream), real(event), 0));
  }

  Event create_event() override {
    cudaEvent_t event = nullptr;
    TRY(cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
    return reinterpret_cast<Event>(event);
  }
  void destroy_event(Event event) noexcept override { drop(cudaEventDestroy(real(event))); }
  void record(Event event, Stream stream) override { TRY(cudaEventRecord(real(event), real(stream))); }
  bool reached(Event event) override {
    const cudaError_t status = cudaEventQuery(real(event));
    if (status == cudaErrorNotReady) {
      drop(status);
      return false;
    }
    check(status, "cudaEventQuery");
    return true;
  }

  void copy(void* to, const void* from, std::size_t nbytes, Stream stream) override {
    TRY(cudaMemcpyAsync(to, from, nbytes, cudaMemcpyDefault, real(stream)));
  }
  void fill(void* to, int byte, std::size_t nbytes, Stream stream) override {
    TRY(cudaMemsetAsync(to, byte, nbytes, real(stream)));
  }
  void launch(DeviceKernel kernel, LaunchShape shape, void** arguments, Stream stream) override {
    TRY(cudaLaunchKernel(kernel_symbol(kernel), dim3(shape.blocks), dim3(shape.threads), arguments, 0,
                         real(stream)));
  }

  void begin_capture(Stream stream) override {
    // Only this thread's unsafe calls may invalidate the capture, not those of the training thread.
    TRY(cudaStreamBeginCapture(real(stream), cudaStreamCaptureModeThreadLocal));
  }
  Graph end_capture(Stream stream) override {
    cudaGraph_t graph = nullptr;
    TRY(cudaStreamEndCapture(real(stream), &graph));
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
    drop(cudaGraphDestroy(graph));
    check(status, "cudaGraphInstantiate");
    return reinterpret_cast<Graph>(executable);
  }
  void launch_graph(Graph graph, Stream stream) override { TRY(cudaGraphLaunch(real(graph), real(stream))); }
  void destroy_graph(Graph graph) noexcept override { drop(cudaGraphExecDestroy(real(graph))); }

 private:
  static void drop(cudaError_t status) noexcept {
    if (status != cudaSuccess) {
      static_cast<void>(cudaGetLastError());
    }
  }
};

}  // namespace

CudaApi& cuda_runtime() {
  static CudaRuntime runtime;
  return runtime;
}

}  // namespace hpresil
