// The instruction set that kernels are dispatched to, decided once at run time.
//
// All levels give equal results; they differ in speed only.
#pragma once

#include <string>
#include <vector>

namespace hpresil {

enum class CpuLevel { portable, sse42, avx2, avx512 };

// Best level of this machine.
CpuLevel best_cpu_level();

// Level in use: the best one, or HPRESIL_CPU_LEVEL when that is set (read once per process).
CpuLevel cpu_level();

// Levels that this machine can run, lowest first.
std::vector<CpuLevel> runnable_cpu_levels();

const char* name_of(CpuLevel level);

// An empty name means the level in use. Throws NativeError for a level this machine cannot run.
CpuLevel cpu_level_named(const std::string& name);

}  // namespace hpresil
