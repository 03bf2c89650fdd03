#include "device/block_hash.h"

#include <algorithm>

#include "checksum/block_hash.h"
#include "device/owned.h"
#include "device/work_lists.h"

namespace hpresil {

std::vector<std::uint64_t> device_block_hashes(CudaApi& api, const std::byte* data, std::uint64_t nbytes,
                                               CudaApi::Stream stream, double timeout_s) {
  std::vector<HashBlock> list;
  for (std::uint64_t at = 0; at < nbytes; at += kHashBlockBytes) {
    list.push_back({data + at, std::min<std::uint64_t>(kHashBlockBytes, nbytes - at)});
  }
  std::vector<std::uint64_t> hashes(list.size());
  if (list.empty()) {
    return hashes;
  }
  const std::size_t list_bytes = list.size() * sizeof(HashBlock);
  const std::size_t hash_bytes = hashes.size() * sizeof(std::uint64_t);
  OwnedMemory device_list(api, api.allocate(list_bytes));
  OwnedMemory device_hashes(api, api.allocate(hash_bytes));
  const OwnedEvent done(api, api.create_event());
  api.copy(device_list.get(), list.data(), list_bytes, stream);
  void* from = device_list.get();
  void* to = device_hashes.get();
  void* arguments[] = {&from, &to};
  api.launch(DeviceKernel::hash_blocks, {static_cast<unsigned>(list.size()), kKernelThreads}, arguments,
             stream);
  api.record(done.get(), stream);
  if (!wait_reached(api, done.get(), timeout_s)) {
    device_list.abandon();
    device_hashes.abandon();
    fail("the device did not hash the blocks in time");
  }
  api.copy(hashes.data(), to, hash_bytes, stream);  // into pageable memory: it is there on the return
  api.record(done.get(), stream);
  expects(wait_reached(api, done.get(), timeout_s), "the hashes did not come back from the device in time");
  return hashes;
}

}  // namespace hpresil
