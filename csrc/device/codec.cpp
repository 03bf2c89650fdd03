#include "device/codec.h"

#include <algorithm>

#include "codec/dispatch.h"
#include "device/work_lists.h"

namespace hpresil {
namespace {

constexpr std::uint64_t kBytesOfAThread = 64;
constexpr std::uint64_t kMostBlocks = 1U << 16;

LaunchShape shape_for(std::uint64_t nbytes) {
  const std::uint64_t of_a_block = kBytesOfAThread * kKernelThreads;
  const std::uint64_t blocks = std::min(kMostBlocks, (nbytes + of_a_block - 1) / of_a_block);
  return {static_cast<unsigned>(blocks), kKernelThreads};
}

}  // namespace

void device_xor_delta(CudaApi& api, std::byte* to, const std::byte* from, const std::byte* previous,
                      std::uint64_t nbytes, CudaApi::Stream stream) {
  expects((to == from || !codec_detail::overlap(to, from, nbytes)) &&
              (to == previous || !codec_detail::overlap(to, previous, nbytes)),
          "the destination of a delta overlaps a source without being it");
  void* arguments[] = {&to, &from, &previous, &nbytes};
  if (nbytes > 0) {
    api.launch(DeviceKernel::exclusive_or, shape_for(nbytes), arguments, stream);
  }
}

void device_shuffle(CudaApi& api, std::byte* to, const std::byte* from, std::uint64_t nbytes,
                    std::uint32_t element_bytes, bool back, CudaApi::Stream stream) {
  expects(element_bytes == 1 || element_bytes == 2 || element_bytes == 4 || element_bytes == 8,
          "an element has 1, 2, 4 or 8 bytes");
  expects(!codec_detail::overlap(to, from, nbytes), "a shuffle is not done in place: the ranges overlap");
  void* arguments[] = {&to, &from, &nbytes, &element_bytes};
  if (nbytes > 0) {
    api.launch(back ? DeviceKernel::unshuffle : DeviceKernel::shuffle, shape_for(nbytes), arguments, stream);
  }
}

}  // namespace hpresil
