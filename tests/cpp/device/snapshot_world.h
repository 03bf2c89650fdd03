// Tensors, a frame and a scripted CUDA for tests of the device snapshot.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <vector>

#include "device/fake_cuda.h"
#include "device/snapshot_stream.h"

namespace hpresil::testing {

inline const auto kTraining = reinterpret_cast<CudaApi::Stream>(1);

inline std::vector<std::byte> random_bytes(std::size_t nbytes, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> made(nbytes);
  for (auto& byte : made) {
    byte = static_cast<std::byte>(random());
  }
  return made;
}

// Tensors on the "device", a frame they are copied into, and the list that says where each goes.
struct SnapshotWorld {
  explicit SnapshotWorld(const std::vector<std::size_t>& sizes) {
    std::size_t at = 0;
    for (const std::size_t nbytes : sizes) {
      tensors.push_back(random_bytes(nbytes, static_cast<unsigned>(tensors.size())));
      offsets.push_back(at);
      at = (at + nbytes + 63) / 64 * 64;
    }
    frame.assign(at + 64, std::byte{0x55});
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      items.push_back({tensors[i].data(), frame.data() + offsets[i], tensors[i].size()});
    }
  }
  bool copied() const {
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (!std::equal(tensors[i].begin(), tensors[i].end(), frame.begin() + offsets[i])) {
        return false;
      }
    }
    return true;
  }
  // One snapshot from beginning to end.
  void snapshot(SnapshotStream& stream) {
    stream.begin(kTraining);
    cuda.run();
    ASSERT_TRUE(stream.wait(5));
  }

  FakeCuda cuda;
  std::vector<std::vector<std::byte>> tensors;
  std::vector<std::size_t> offsets;
  std::vector<std::byte> frame;
  std::vector<CopyItem> items;
};

inline const std::vector<std::size_t> kSizes = {100, 4, 65536, 0, 3 << 20, 1, 40000, (1 << 20) + 5, 7};

}  // namespace hpresil::testing
