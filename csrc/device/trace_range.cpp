#include "device/trace_range.h"

#if HPRESIL_HAS_NVTX
#include <nvtx3/nvToolsExt.h>
#endif

namespace hpresil {

#if HPRESIL_HAS_NVTX
bool has_trace_ranges() { return true; }
void push_trace_range(const char* name) { static_cast<void>(nvtxRangePushA(name)); }
void pop_trace_range() { static_cast<void>(nvtxRangePop()); }
#else
bool has_trace_ranges() { return false; }
void push_trace_range(const char* /*name*/) {}
void pop_trace_range() {}
#endif

}  // namespace hpresil
