// A memory file with any bytes in it, given to a process as a snapshot frame: refused, or read without harm.
//
// The first byte says whether the page is sealed as it is: with a right seal the numbers themselves are
// tried.
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "checksum/crc32c.h"
#include "snapshot/sealed_frame.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t nbytes) {
  if (nbytes == 0) {
    return 0;
  }
  const std::size_t size = nbytes - 1 < hpresil::kHeaderBytes ? hpresil::kHeaderBytes : nbytes - 1;
  std::vector<std::uint64_t> words((size + 7) / 8);
  auto* base = reinterpret_cast<std::byte*>(words.data());
  std::memcpy(base, data + 1, nbytes - 1);
  if ((data[0] & 1U) != 0) {
    const std::uint64_t crc = hpresil::crc32c(base, hpresil::kSealOffset, 0, hpresil::cpu_level());
    const std::uint64_t seal = crc << 32 | hpresil::kSealMark;
    std::memcpy(base + hpresil::kSealOffset, &seal, sizeof(seal));
  }
  try {
    const hpresil::SealedFrame frame(base, size);
    for (const hpresil::Section& section : frame.header().sections) {
      std::vector<std::byte> to(section.nbytes);
      const hpresil::Taken taken{0, section.offset, section.nbytes, to.data()};
      frame.copy({&taken, 1});
    }
  } catch (const hpresil::NativeError&) {
  }
  return 0;
}
