// A memory file with any bytes in it, given to a process as a liveness page: refused, or read without harm.
#include <fcntl.h>
#include <unistd.h>

#include <cstdint>

#include "base/error.h"
#include "liveness/page.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t nbytes) {
  const std::size_t size = nbytes < hpresil::kPageFileBytes ? hpresil::kPageFileBytes : nbytes;
  const hpresil::Fd file = hpresil::create_memfd("fuzz", size);
  if (::pwrite(file.get(), data, nbytes, 0) != static_cast<ssize_t>(nbytes)) {
    return 0;
  }
  hpresil::add_seals(file.get(), F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  try {
    const auto page = hpresil::Page::attach(file.get());
    (void)page->read();
    (void)page->wait_generation(page->generation(), 0);
  } catch (const hpresil::NativeError&) {
  }
  return 0;
}
