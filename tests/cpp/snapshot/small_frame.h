// A frame of three small tensors, whose contents follow from a version.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "snapshot/fill.h"
#include "snapshot/sealed_frame.h"

namespace hpresil {

struct SmallFrame {
  static constexpr std::size_t kBytes = 16384;
  static constexpr std::array<std::size_t, 3> kSizes{100, 0, 2000};
  static constexpr std::array<std::size_t, 3> kOffsets{8192, 8320, 12288};

  static std::vector<std::vector<std::byte>> tensors(std::int64_t version) {
    std::vector<std::vector<std::byte>> made;
    for (std::size_t i = 0; i < kSizes.size(); ++i) {
      made.emplace_back(kSizes[i], static_cast<std::byte>(version * 7 + static_cast<std::int64_t>(i)));
    }
    return made;
  }

  static FrameHeader header(std::int64_t version, std::size_t manifest_bytes) {
    FrameHeader made{};
    made.version = version;
    made.frame_bytes = kBytes;
    made.manifest_offset = kHeaderBytes;
    made.manifest_bytes = manifest_bytes;
    made.sums_offset = 4992;
    made.sums_bytes = 12;
    made.there = 3;
    made.sections = {Section{8192, 128, 2, 0}, {8320, 0, 0, 0}, {8320, 0, 0, 0}, {12288, 2000, 1, 0}};
    return made;
  }

  static Contents contents(std::byte* base, std::int64_t version,
                           const std::vector<std::vector<std::byte>>& tensors) {
    const std::string text = "manifest of version " + std::to_string(version);
    std::vector<std::byte> manifest(text.size());
    std::memcpy(manifest.data(), text.data(), text.size());
    Contents made{base, kBytes, header(version, text.size()), manifest, std::vector<std::uint32_t>(3), {}};
    for (std::size_t i = 0; i < kSizes.size(); ++i) {
      made.tensors.push_back({tensors[i].data(), kOffsets[i], kSizes[i], i});
    }
    return made;
  }

  // The version in a frame, all of whose bytes are those of that version; -1 if it is none. Anything between
  // throws.
  static std::int64_t version_in(const std::byte* base) {
    try {
      const SealedFrame frame(base, kBytes);
      auto found = tensors(0);
      std::vector<Taken> taken;
      for (std::size_t i = 0; i < kSizes.size(); ++i) {
        taken.push_back({i, kOffsets[i], kSizes[i], found[i].data()});
      }
      frame.copy(taken);
      if (found != tensors(frame.header().version)) {
        throw std::runtime_error("the bytes in the frame are not those of its version");
      }
      return frame.header().version;
    } catch (const NativeError&) {
      return -1;
    }
  }
};

}  // namespace hpresil
