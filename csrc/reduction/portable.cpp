// Any machine; on x86-64 that is SSE2.
#include "reduction/kernel.h"

namespace hpresil::reduction_detail {
namespace {

#include "reduction/loops.inl"

}  // namespace

const Kernel kPortable{square_sum<float>, square_sum<double>, add_ordered<float>, add_ordered<double>};

}  // namespace hpresil::reduction_detail
