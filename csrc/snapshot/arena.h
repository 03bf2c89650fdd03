// Memory for frames: sealed memory files, in huge pages where the machine has them, all pages there from the
// start.
//
// A copy into a cold page costs over ten times one into a warm page, and the registration of memory for DMA
// takes time by the page. Without huge pages everything works, in small ones; the note says why.
#pragma once

#include <cstddef>
#include <string>

#include "memory/memfd.h"

namespace hpresil {

struct Arena {
  Fd fd;               // cannot shrink or grow any more
  std::size_t nbytes;  // what was asked for, rounded up to whole pages
  std::string note;    // "huge pages", or why they are small
};

// Throws NativeError where the system gives no memory file of that size.
Arena create_arena(const std::string& name, std::size_t nbytes);

// Brings in every page of [data, data + nbytes), a writable shared mapping, with up to `threads` threads;
// transparent huge pages are asked for. Contents stay. Throws NativeError when there is not enough memory.
void fault_in(std::byte* data, std::size_t nbytes, int threads);

}  // namespace hpresil
