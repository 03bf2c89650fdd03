// The reduction kernels that one instruction-set level offers.
#pragma once

#include <cstddef>

namespace hpresil::reduction_detail {

// Adds elements [begin, end) of all sources.
template <typename T>
using Add = void (*)(T* to, const T* const* sources, std::size_t sources_count, std::size_t begin,
                     std::size_t end);

struct Kernel {
  double (*square_sum_f4)(const float* from, std::size_t count);
  double (*square_sum_f8)(const double* from, std::size_t count);
  Add<float> add_f4;
  Add<double> add_f8;
};

extern const Kernel kPortable;
#if defined(__x86_64__)
extern const Kernel kAvx2;
extern const Kernel kAvx512;
#endif

}  // namespace hpresil::reduction_detail
