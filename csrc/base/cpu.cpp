#include "base/cpu.h"

#include <array>
#include <cstdlib>

#include "base/error.h"

namespace hpresil {
namespace {

constexpr std::array<CpuLevel, 4> kLevels = {CpuLevel::portable, CpuLevel::sse42, CpuLevel::avx2,
                                             CpuLevel::avx512};

bool runs(CpuLevel level) {
#if defined(__x86_64__)
  switch (level) {
    case CpuLevel::portable:
      return true;
    case CpuLevel::sse42:
      return __builtin_cpu_supports("sse4.2");
    case CpuLevel::avx2:
      return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("avx2");
    case CpuLevel::avx512:
      return __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("avx2") &&
             __builtin_cpu_supports("avx512f");
  }
  return false;
#else
  return level == CpuLevel::portable;
#endif
}

CpuLevel known_level(const std::string& name) {
  for (const CpuLevel level : kLevels) {
    if (name == name_of(level)) {
      if (!runs(level)) {
        fail("this CPU cannot run level " + name + "; its best is " + name_of(best_cpu_level()));
      }
      return level;
    }
  }
  fail("unknown CPU level '" + name + "'; known: portable, sse4.2, avx2, avx512");
}

}  // namespace

std::vector<CpuLevel> runnable_cpu_levels() {
  std::vector<CpuLevel> levels;
  for (const CpuLevel level : kLevels) {
    if (runs(level)) {
      levels.push_back(level);
    }
  }
  return levels;
}

CpuLevel best_cpu_level() {
  static const CpuLevel best = runnable_cpu_levels().back();
  return best;
}

CpuLevel cpu_level() {
  static const CpuLevel chosen = [] {
    const char* wanted = std::getenv("HPRESIL_CPU_LEVEL");
    const bool given = wanted != nullptr && *wanted != '\0';
    return given ? known_level(wanted) : best_cpu_level();
  }();
  return chosen;
}

const char* name_of(CpuLevel level) {
  switch (level) {
    case CpuLevel::portable:
      return "portable";
    case CpuLevel::sse42:
      return "sse4.2";
    case CpuLevel::avx2:
      return "avx2";
    case CpuLevel::avx512:
      return "avx512";
  }
  return "?";
}

CpuLevel cpu_level_named(const std::string& name) { return name.empty() ? cpu_level() : known_level(name); }

}  // namespace hpresil
