// The end of a snapshot stream: nothing that the device may still write to is given back.
#include <mutex>
#include <new>
#include <vector>

#include "device/snapshot_stream.h"

namespace hpresil {
namespace {

constexpr double kLastWaitS = 1;

void keep_for_ever(HostPages pages) {
  static std::mutex mutex;
  static auto* const kept = new std::vector<HostPages>;
  const std::lock_guard lock(mutex);
  kept->push_back(std::move(pages));
}

}  // namespace

SnapshotStream::~SnapshotStream() {
  if (may_be_written()) {
    try {
      abandon();
    } catch (const std::bad_alloc&) {  // then the pages are given back after all: there is nothing else to do
    }
  }
}

bool SnapshotStream::may_be_written() noexcept {
  try {
    return !wait(kLastWaitS);
  } catch (const NativeError&) {
    return lost_.empty();  // a context that is lost writes nothing
  }
}

void SnapshotStream::abandon() {
  for (OwnedMemory* memory : {&staging_, &chunks_, &blocks_, &device_hashes_}) {
    memory->abandon();
  }
  for (Range& range : ranges_) {
    range.registration.abandon();
  }
  hashes_registration_.abandon();
  keep_for_ever(std::move(hashes_));
}

}  // namespace hpresil
