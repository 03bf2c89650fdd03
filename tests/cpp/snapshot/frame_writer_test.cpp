// The seal protocol, stopped at each of its stores: a frame is what it was, or whole, or no frame.
#include "snapshot/frame_writer.h"

#include <gtest/gtest.h>

#include <limits>

#include "checksum/crc32c.h"
#include "snapshot/small_frame.h"

namespace hpresil {
namespace {

struct Stopped {};

// Lets so many words through, then none.
struct CountedStore {
  std::size_t* left;
  void operator()(std::uint64_t* to, std::uint64_t value) const {
    if (*left == 0) {
      throw Stopped{};
    }
    --*left;
    PlainStore{}(to, value);
  }
};

struct alignas(4096) Memory {
  std::array<std::byte, SmallFrame::kBytes> bytes{};
};

// What Fill does, through a store that may stop; tensors go in by words, too.
void fill(std::byte* base, std::int64_t version, std::size_t* left) {
  const auto tensors = SmallFrame::tensors(version);
  Contents contents = SmallFrame::contents(base, version, tensors);
  FrameHeader& header = contents.header;
  const CountedStore store{left};
  FrameWriter<CountedStore> writer(base, SmallFrame::kBytes, store);
  header.fills = writer.open();
  writer.write_manifest(header, contents.manifest);
  const auto sum = [](const void* data, std::size_t nbytes) {
    return crc32c(static_cast<const std::byte*>(data), nbytes, 0, cpu_level());
  };
  for (const Tensor& tensor : contents.tensors) {
    for (std::size_t at = 0; at < tensor.nbytes; at += 8) {
      std::uint64_t word = 0;
      std::memcpy(&word, tensor.from + at, std::min<std::size_t>(8, tensor.nbytes - at));
      store(reinterpret_cast<std::uint64_t*>(base + tensor.offset + at), word);
    }
    contents.sums[tensor.place] = sum(tensor.from, tensor.nbytes);
  }
  header.manifest_crc = sum(contents.manifest.data(), contents.manifest.size());
  header.sections[0].crc = sum(contents.sums.data(), 8);
  header.sections[3].crc = sum(contents.sums.data() + 2, 4);
  writer.seal(header, contents.sums);
}

std::size_t stores_of_a_fill() {
  Memory memory;
  std::size_t left = std::numeric_limits<std::size_t>::max();
  fill(memory.bytes.data(), 1, &left);
  return std::numeric_limits<std::size_t>::max() - left;
}

TEST(FrameWriter, StoppedAtAnyStoreLeavesTheOldFrameOrNone) {
  const std::size_t stores = stores_of_a_fill();
  ASSERT_GT(stores, kHeaderBytes / 8);
  for (std::size_t stop = 0; stop <= stores; ++stop) {
    Memory memory;
    std::size_t left = stores;
    fill(memory.bytes.data(), 1, &left);
    ASSERT_EQ(SmallFrame::version_in(memory.bytes.data()), 1);
    left = stop;
    bool stopped = false;
    try {
      fill(memory.bytes.data(), 2, &left);
    } catch (const Stopped&) {
      stopped = true;
    }
    EXPECT_EQ(stopped, stop < stores);
    const std::int64_t expected = stop == 0 ? 1 : stop == stores ? 2 : -1;
    EXPECT_EQ(SmallFrame::version_in(memory.bytes.data()), expected) << "after " << stop << " stores";
  }
}

TEST(FrameWriter, FillsAFrameWhoseWriterStoppedAnywhere) {
  const std::size_t stores = stores_of_a_fill();
  for (std::size_t stop = 0; stop < stores; ++stop) {
    Memory memory;
    std::size_t left = stop;
    EXPECT_THROW(fill(memory.bytes.data(), 1, &left), Stopped);
    left = stores;
    fill(memory.bytes.data(), 2, &left);
    EXPECT_EQ(SmallFrame::version_in(memory.bytes.data()), 2);
  }
}

TEST(FrameWriter, MakesEverySealDifferent) {
  Memory memory;
  std::size_t left = std::numeric_limits<std::size_t>::max();
  fill(memory.bytes.data(), 5, &left);
  const SealedFrame first(memory.bytes.data(), SmallFrame::kBytes);
  EXPECT_TRUE(first.still_sealed());
  fill(memory.bytes.data(), 5, &left);
  EXPECT_FALSE(first.still_sealed()) << "the same version again is another filling";
  std::vector<std::byte> to(SmallFrame::kSizes[0]);
  const Taken taken{0, SmallFrame::kOffsets[0], to.size(), to.data()};
  EXPECT_THROW(first.copy({&taken, 1}), NativeError);
  EXPECT_EQ(SealedFrame(memory.bytes.data(), SmallFrame::kBytes).header().fills, 2U);
}

TEST(SealedFrame, NamesTheTensorThatIsDamaged) {
  Memory memory;
  std::size_t left = std::numeric_limits<std::size_t>::max();
  fill(memory.bytes.data(), 5, &left);
  memory.bytes[SmallFrame::kOffsets[2] + 1999] ^= std::byte{1};
  const SealedFrame frame(memory.bytes.data(), SmallFrame::kBytes);
  std::vector<std::byte> to(SmallFrame::kSizes[2]);
  const Taken taken{2, SmallFrame::kOffsets[2], to.size(), to.data()};
  EXPECT_THROW(frame.copy({&taken, 1}), NativeError);
  const Taken outside{3, 0, 1, to.data()};
  EXPECT_THROW(frame.copy({&outside, 1}), NativeError);
}

}  // namespace
}  // namespace hpresil
