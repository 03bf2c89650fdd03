// AVX-512.
#include "reduction/kernel.h"

namespace hpresil::reduction_detail {
namespace {

#include "reduction/loops.inl"

}  // namespace

const Kernel kAvx512{square_sum<float>, square_sum<double>, add_ordered<float>, add_ordered<double>};

}  // namespace hpresil::reduction_detail
