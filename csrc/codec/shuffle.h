// Byte planes: the first bytes of all elements, then all second bytes, and so on.
//
// Signs and exponents of neighbouring numbers are alike, mantissas are not; side by side with their like,
// bytes compress better (the shuffle filter of HDF5 and Blosc). What is left over when the size is not a
// multiple of the element's stays at the end as it is. Thread safe; nothing throws but bad arguments.
#pragma once

#include <cstddef>

#include "base/cpu.h"

namespace hpresil {

// Element sizes: 1 (a copy), 2, 4, 8 bytes. Not in place: ranges that overlap are refused. Any address, any
// size; one thread.
void shuffle(std::byte* to, const std::byte* from, std::size_t nbytes, std::size_t element_bytes,
             CpuLevel level);

// Undoes it.
void unshuffle(std::byte* to, const std::byte* from, std::size_t nbytes, std::size_t element_bytes,
               CpuLevel level);

}  // namespace hpresil
