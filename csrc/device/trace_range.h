// Named ranges on a profiler's timeline (NVTX); nothing happens without a profiler.
#pragma once

namespace hpresil {

bool has_trace_ranges();  // false when built without the NVTX headers
void push_trace_range(const char* name);
void pop_trace_range();

}  // namespace hpresil
