// Any bytes as the file of a library that a worker has mapped: names of functions, or none, without harm.
//
// The first eight bytes are the places to be named, two bytes each; the file follows.
#include <unistd.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "base/elf_symbols.h"
#include "memory/memfd.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t nbytes) {
  std::array<std::uint16_t, 4> places{};
  if (nbytes < sizeof(places)) {
    return 0;
  }
  std::memcpy(places.data(), data, sizeof(places));
  const std::size_t size = nbytes - sizeof(places);
  const hpresil::Fd file = hpresil::create_memfd("fuzz", size);
  if (::pwrite(file.get(), data + sizeof(places), size, 0) != static_cast<ssize_t>(size)) {
    return 0;
  }
  std::array<hpresil::FunctionAt, 5> wanted{};
  for (std::size_t i = 0; i < places.size(); ++i) {
    wanted[i].file_offset = places[i];
  }
  wanted.back().file_offset = ~std::uint64_t{0};
  hpresil::name_functions(file.get(), wanted);
  for (const hpresil::FunctionAt& one : wanted) {
    if (one.name.empty() && one.distance != 0) {
      std::abort();
    }
  }
  return 0;
}
