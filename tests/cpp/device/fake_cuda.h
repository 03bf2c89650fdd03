// A CUDA runtime without a device: work is queued in streams and run on the host when it is asked for.
//
// `run()` runs whatever is queued and may run, in the order it was queued; until then nothing has happened,
// as on a device that is busy. Kernels do what theirs do, by the functions of the host. `fail_next` scripts
// errors.
#pragma once

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "checksum/block_hash.h"
#include "codec/shuffle.h"
#include "codec/xor.h"
#include "device/cuda_api.h"
#include "device/work_lists.h"

namespace hpresil::testing {

class FakeCuda final : public CudaApi {
 public:
  using Work = std::function<void()>;
  struct Failure {
    CudaFault fault;
    int after;  // how many calls of that name still work
    int times;
  };

  // The next `times` calls named `call` fail, after `after` that work. After context_lost every call does.
  void fail_next(const std::string& call, CudaFault fault, int after = 0, int times = 1) {
    failures_[call] = {fault, after, times};
  }
  int count(const std::string& call) const {
    const auto found = counts_.find(call);
    return found == counts_.end() ? 0 : found->second;
  }
  // Whether the device works by itself: whatever may run has run when somebody asks whether it has.
  bool prompt = false;

  // Everything that may run does, unless the context is lost. Work behind an event that is not reached yet
  // stays.
  void run() {
    for (bool more = !lost_; more;) {
      more = false;
      for (auto& [stream, queue] : queues_) {
        while (!queue.empty() && queue.front().may_run()) {
          const Work work = std::move(queue.front().work);
          queue.erase(queue.begin());
          work();
          more = true;
        }
      }
    }
  }
  // Adds work of the training itself to a stream.
  void train(Stream stream, Work work) { queue(stream, std::move(work)); }
  std::size_t things_held() const {
    return memory_.size() + registered_.size() + streams_.size() + events_.size() + graphs_.size();
  }

  int current_device() override { return enter("current_device"), device_; }
  void set_device(int index) override {
    enter("set_device");
    device_ = index;
  }
  void* allocate(std::size_t nbytes) override {
    enter("allocate");
    auto made = std::make_unique<std::byte[]>(nbytes);
    std::fill_n(made.get(), nbytes, std::byte{0xEE});  // a device does not clear its memory
    void* const address = made.get();
    memory_[address] = std::move(made);
    return address;
  }
  void free(void* memory) noexcept override {
    run();  // as cudaFree, which waits for the device
    memory_.erase(memory);
  }
  void register_host(void* address, std::size_t /*nbytes*/) override {
    enter("register_host");
    registered_.insert(address);
  }
  void unregister_host(void* address) noexcept override { registered_.erase(address); }
  void* device_address(void* registered) override { return enter("device_address"), registered; }

  Stream create_stream() override { return enter("create_stream"), made<Stream>(streams_); }
  void destroy_stream(Stream stream) noexcept override { streams_.erase(stream); }
  void wait_event(Stream stream, Event event) override {
    enter("wait_event");
    const int wanted = records_[event];
    queues_[stream].push_back({[] {}, [this, event, wanted] { return reached_[event] >= wanted; }});
  }
  Event create_event() override { return enter("create_event"), made<Event>(events_); }
  void destroy_event(Event event) noexcept override { events_.erase(event); }
  void record(Event event, Stream stream) override {
    enter("record");
    const int number = ++records_[event];
    queue(stream, [this, event, number] { reached_[event] = number; });
  }
  bool reached(Event event) override {
    enter("reached");
    if (prompt) {
      run();
    }
    return reached_[event] >= records_[event];
  }

  void copy(void* to, const void* from, std::size_t nbytes, Stream stream) override {
    enter("copy");
    if (memory_.contains(to)) {
      // From pageable memory to the device: the source may be gone once this returns.
      const auto* const bytes = static_cast<const std::byte*>(from);
      const std::vector<std::byte> taken(bytes, bytes + nbytes);
      queue(stream, [=] { std::memcpy(to, taken.data(), nbytes); });
      return;
    }
    queue(stream, [=] { std::memcpy(to, from, nbytes); });
  }
  void fill(void* to, int byte, std::size_t nbytes, Stream stream) override {
    enter("fill");
    queue(stream, [=] { std::memset(to, byte, nbytes); });
  }
  void launch(DeviceKernel kernel, LaunchShape shape, void** arguments, Stream stream) override;

  void begin_capture(Stream stream) override {
    enter("begin_capture");
    expects(capturing_ == nullptr, "two captures at once");
    capturing_ = stream;
  }
  Graph end_capture(Stream stream) override {
    expects(capturing_ == stream, "no capture on this stream");
    capturing_ = nullptr;
    const std::vector<Work> works = std::move(captured_);
    captured_.clear();
    enter("end_capture");
    const Graph graph = made<Graph>(graphs_);
    recorded_[graph] = works;
    return graph;
  }
  void launch_graph(Graph graph, Stream stream) override {
    enter("launch_graph");
    for (const Work& work : recorded_.at(graph)) {
      queue(stream, work);
    }
  }
  void destroy_graph(Graph graph) noexcept override { graphs_.erase(graph); }

 private:
  struct Queued {
    Work work;
    std::function<bool()> may_run;
  };

  void enter(const std::string& call) {
    ++counts_[call];
    if (lost_) {
      throw CudaError(CudaFault::context_lost, call + ": an earlier error");
    }
    const auto found = failures_.find(call);
    if (found == failures_.end() || found->second.times == 0) {
      return;
    }
    if (found->second.after-- > 0) {
      return;
    }
    --found->second.times;
    lost_ = found->second.fault == CudaFault::context_lost;
    throw CudaError(found->second.fault, call + ": scripted");
  }
  void gate(DeviceKernel kernel, void** arguments, Stream stream);
  void queue(Stream stream, Work work) {
    if (stream == capturing_ && capturing_ != nullptr) {
      captured_.push_back(std::move(work));
    } else {
      queues_[stream].push_back({std::move(work), [] { return true; }});
    }
  }
  template <typename Handle>
  Handle made(std::set<Handle>& held) {
    const auto handle = reinterpret_cast<Handle>(++last_handle_ * 16);
    held.insert(handle);
    return handle;
  }

  std::uintptr_t last_handle_ = 0;
  int device_ = 0;
  bool lost_ = false;
  Stream capturing_ = nullptr;
  std::vector<Work> captured_;
  std::map<std::string, Failure> failures_;
  std::map<std::string, int> counts_;
  std::map<void*, std::unique_ptr<std::byte[]>> memory_;
  std::set<void*> registered_;
  std::set<Stream> streams_;
  std::set<Event> events_;
  std::set<Graph> graphs_;
  std::map<Graph, std::vector<Work>> recorded_;
  std::map<Stream, std::vector<Queued>> queues_;
  std::map<Event, int> records_;
  std::map<Event, int> reached_;
};

template <typename T>
T argument(void** arguments, int i) {
  return *static_cast<T*>(arguments[i]);
}

inline void FakeCuda::gate(DeviceKernel kernel, void** arguments, Stream stream) {
  auto* const flag = argument<float*>(arguments, 0);
  auto* const ballots = argument<std::uint64_t*>(arguments, 1);
  const auto count = argument<int>(arguments, 2);
  if (kernel == DeviceKernel::close_gate) {
    return queue(stream, [=] {
      std::fill_n(ballots, count, std::uint64_t{0});
      *flag = 1.0F;
    });
  }
  const auto token = argument<std::uint64_t>(arguments, 3);
  queue(stream, [=] {
    const auto is_token = [=](std::uint64_t ballot) { return ballot == token; };
    *flag = std::all_of(ballots, ballots + count, is_token) ? 0.0F : 1.0F;
  });
}

inline void FakeCuda::launch(DeviceKernel kernel, LaunchShape shape, void** arguments, Stream stream) {
  enter("launch");
  expects(shape.blocks > 0 && shape.threads == kKernelThreads, "a launch of another shape");
  const auto first = argument<std::byte*>(arguments, 0);
  const auto second = argument<std::byte*>(arguments, 1);
  switch (kernel) {
    case DeviceKernel::gather:
      return queue(stream, [=] {
        for (unsigned i = 0; i < shape.blocks; ++i) {
          const GatherChunk& chunk = reinterpret_cast<const GatherChunk*>(first)[i];
          std::memcpy(second + chunk.offset, chunk.from, chunk.nbytes);
        }
      });
    case DeviceKernel::hash_blocks:
      return queue(stream, [=] {
        for (unsigned i = 0; i < shape.blocks; ++i) {
          const HashBlock& block = reinterpret_cast<const HashBlock*>(first)[i];
          reinterpret_cast<std::uint64_t*>(second)[i] = block_hash(block.data, block.nbytes, cpu_level());
        }
      });
    case DeviceKernel::exclusive_or: {
      const auto previous = argument<const std::byte*>(arguments, 2);
      const auto nbytes = argument<std::uint64_t>(arguments, 3);
      return queue(stream, [=] { xor_delta(first, second, previous, nbytes, 1, cpu_level()); });
    }
    case DeviceKernel::shuffle:
    case DeviceKernel::unshuffle: {
      const auto nbytes = argument<std::uint64_t>(arguments, 2);
      const auto size = argument<std::uint32_t>(arguments, 3);
      const auto work = kernel == DeviceKernel::shuffle ? shuffle : unshuffle;
      return queue(stream, [=] { work(first, second, nbytes, size, cpu_level()); });
    }
    case DeviceKernel::close_gate:
    case DeviceKernel::open_gate:
      return gate(kernel, arguments, stream);
  }
}

}  // namespace hpresil::testing
