// Additions in a fixed order, with equal bits for every instruction set, alignment and thread count.
//
// All functions keep denormals whatever mode the calling thread is in (see float_mode.h). Addresses are
// multiples of the element size.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "base/cpu.h"

namespace hpresil {

enum class FloatType { f4, f8 };

// Double-precision sum of squares of each run of `block` elements (the last may be shorter), in the
// order of loops.inl.
std::vector<double> square_sums(const void* from, std::size_t count, std::size_t block, FloatType type,
                                int threads, CpuLevel level);

// to[i] = ((sources[0][i] + sources[1][i]) + sources[2][i]) …, at least one source. `to` may be one of
// the sources; it may not overlap one otherwise.
void add_ordered(void* to, std::span<const void* const> sources, std::size_t count, FloatType type,
                 int threads, CpuLevel level);

}  // namespace hpresil
