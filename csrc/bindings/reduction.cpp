#include "reduction/reduction.h"

#include <pybind11/stl.h>

#include "base/error.h"
#include "bindings/module.h"

namespace hpresil::bindings {
namespace {

FloatType float_type(const std::string& name) {
  if (name == "f4") {
    return FloatType::f4;
  }
  if (name == "f8") {
    return FloatType::f8;
  }
  fail("unknown dtype '" + name + "'; known: f4, f8");
}

void add_at(Address to, const std::vector<Address>& sources, std::size_t count, const std::string& dtype,
            int threads, const std::string& level) {
  std::vector<const void*> pointers;
  pointers.reserve(sources.size());
  for (const Address source : sources) {
    pointers.push_back(pointer(source));
  }
  const FloatType type = float_type(dtype);
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  add_ordered(pointer(to), pointers, count, type, threads, chosen);
}

std::vector<double> square_sums_at(Address from, std::size_t count, std::size_t block,
                                   const std::string& dtype, int threads, const std::string& level) {
  const FloatType type = float_type(dtype);
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  return square_sums(pointer(from), count, block, type, threads, chosen);
}

}  // namespace

void bind_reduction(py::module_& module) {
  module.def("add_ordered", &add_at, py::arg("dst"), py::arg("sources"), py::arg("count"), py::arg("dtype"),
             py::arg("threads") = 1, py::kw_only(), py::arg("level") = "");
  module.def("square_sums", &square_sums_at, py::arg("src"), py::arg("count"), py::arg("block"),
             py::arg("dtype"), py::arg("threads") = 1, py::kw_only(), py::arg("level") = "");
}

}  // namespace hpresil::bindings
