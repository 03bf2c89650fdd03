#include "communicator/operations.h"

#include "base/error.h"

namespace hpresil {
namespace {

NcclResult call(const NcclApi& api, const Operation& op, NcclComm* comm, CudaStream stream) {
  const std::size_t floats = op.bytes / sizeof(float);
  switch (op.kind) {
    case Kind::all_reduce:
      return api.all_reduce(op.from, op.to, floats, kNcclFloat32, kNcclSum, comm, stream);
    case Kind::broadcast:
      return api.broadcast(op.from, op.to, op.bytes, kNcclUint8, op.peer, comm, stream);
    case Kind::reduce:
      return api.reduce(op.from, op.to, floats, kNcclFloat32, kNcclSum, op.peer, comm, stream);
    case Kind::all_gather:
      return api.all_gather(op.from, op.to, op.bytes, kNcclUint8, comm, stream);
    case Kind::reduce_scatter:
      return api.reduce_scatter(op.from, op.to, floats, kNcclFloat32, kNcclSum, comm, stream);
    case Kind::send:
      return api.send(op.from, op.bytes, kNcclUint8, op.peer, comm, stream);
    case Kind::receive:
      return api.receive(op.to, op.bytes, kNcclUint8, op.peer, comm, stream);
  }
  return kNcclInvalidArgument;
}

void check(const Operation& op, const Place& place) {
  const bool adds = op.kind == Kind::all_reduce || op.kind == Kind::reduce || op.kind == Kind::reduce_scatter;
  expects(!adds || op.bytes % sizeof(float) == 0, "a reduction adds whole float32 elements");
  const bool named = op.kind == Kind::broadcast || op.kind == Kind::reduce || op.kind == Kind::send ||
                     op.kind == Kind::receive;
  expects(!named || (op.peer >= 0 && op.peer < place.ranks),
          "an operation names no rank of its communicator");
}

bool well(NcclResult result) { return result == kNcclSuccess || result == kNcclInProgress; }

NcclResult call_group(const NcclApi& api, const OperationGroup& group, NcclComm* comm, CudaStream stream) {
  const NcclResult started = api.group_start();
  NcclResult first = started;
  for (std::size_t i = 0; well(first) && i < group.size(); ++i) {
    first = call(api, group[i], comm, stream);
  }
  const NcclResult ended = started == kNcclSuccess ? api.group_end() : started;
  return well(first) ? ended : first;
}

}  // namespace

void enqueue(Communicator& communicator, const std::vector<OperationGroup>& groups, CudaStream stream,
             const Deadline& deadline) {
  for (const OperationGroup& group : groups) {
    for (const Operation& op : group) {
      check(op, communicator.place());
    }
  }
  for (const OperationGroup& group : groups) {
    communicator.use(deadline.what(),
                     [&](NcclComm* comm) { return call_group(communicator.api(), group, comm, stream); });
    communicator.wait(deadline);  // NCCL takes nothing else while a group is being launched
  }
}

void run(Communicator& communicator, DeviceApi& devices, const std::vector<OperationGroup>& groups,
         CudaStream stream, const Deadline& deadline) {
  enqueue(communicator, groups, stream, deadline);
  const auto drop = [&devices](void* event) { devices.drop(event); };
  const std::unique_ptr<void, decltype(drop)> event(devices.record(stream), drop);
  const bool ended = look_until(deadline, [&] {
    const NcclResult state = communicator.look();
    check_nccl(communicator.api(), state, communicator.text() + ": " + deadline.what() + " failed");
    return devices.done(event.get());
  });
  if (!ended) {
    fail(communicator.text() + ": " + deadline.text());
  }
}

}  // namespace hpresil
