// The difference of two versions as their exclusive or: lossless, and its own inverse.
//
// Bytes that did not change become zeros. Dense training changes every element, and then this finds
// nothing (docs/design/codec.md has figures). Thread safe; nothing throws but bad arguments.
#pragma once

#include <cstddef>

#include "base/cpu.h"

namespace hpresil {

// to[i] = from[i] ^ previous[i]. In place: `to` may be exactly `from` or exactly `previous`; ranges that
// overlap otherwise are refused. Any address, any size, on up to `threads` threads.
void xor_delta(std::byte* to, const std::byte* from, const std::byte* previous, std::size_t nbytes,
               int threads, CpuLevel level);

}  // namespace hpresil
