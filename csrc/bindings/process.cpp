#include <pybind11/stl.h>
#include <sys/prctl.h>

#include <cerrno>

#include "base/cpu.h"
#include "base/error.h"
#include "bindings/module.h"
#include "device/device.h"
#include "device/trace_range.h"
#include "trace/span.h"
#include "trace/span_log.h"

namespace hpresil::bindings {
namespace {

void set_pdeathsig(int signal) {
  if (prctl(PR_SET_PDEATHSIG, signal) != 0) {
    fail_errno("prctl(PR_SET_PDEATHSIG, " + std::to_string(signal) + ")", errno);
  }
}

py::dict built_with() {
  py::dict facts;
  facts["compiler"] = HPRESIL_COMPILER;
  facts["build_type"] = HPRESIL_BUILD_TYPE;
  facts["pybind11"] = PYBIND11_TOSTRING(PYBIND11_VERSION_MAJOR) "." PYBIND11_TOSTRING(PYBIND11_VERSION_MINOR);
  facts["cuda"] = cuda_toolkit();
  facts["cuda_architectures"] = cuda_architectures();
  facts["nvtx"] = has_trace_ranges();
  return facts;
}

std::vector<std::string> levels() {
  std::vector<std::string> names;
  for (const CpuLevel level : runnable_cpu_levels()) {
    names.emplace_back(name_of(level));
  }
  return names;
}

}  // namespace

void bind_process(py::module_& module) {
  module.def("built_with", &built_with);
  module.def("cpu_level", [] { return name_of(cpu_level()); });
  module.def("cpu_levels", &levels);
  module.def("attach_spans", &attach_span_log, py::arg("fd"));
  module.def("span_names", [] { return kSpanNames; });
  module.def("set_pdeathsig", &set_pdeathsig, py::arg("signal"));
}

}  // namespace hpresil::bindings
