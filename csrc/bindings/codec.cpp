#include "bindings/module.h"
#include "codec/shuffle.h"
#include "codec/xor.h"

namespace hpresil::bindings {
namespace {

void xor_at(Address to, Address from, Address previous, std::size_t nbytes, int threads,
            const std::string& level) {
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  xor_delta(pointer(to), pointer(from), pointer(previous), nbytes, threads, chosen);
}

void shuffle_at(Address to, Address from, std::size_t nbytes, std::size_t element_bytes,
                const std::string& level) {
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  shuffle(pointer(to), pointer(from), nbytes, element_bytes, chosen);
}

void unshuffle_at(Address to, Address from, std::size_t nbytes, std::size_t element_bytes,
                  const std::string& level) {
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  unshuffle(pointer(to), pointer(from), nbytes, element_bytes, chosen);
}

}  // namespace

void bind_codec(py::module_& module) {
  module.def("xor_delta", &xor_at, py::arg("dst"), py::arg("src"), py::arg("previous"), py::arg("nbytes"),
             py::arg("threads") = 1, py::kw_only(), py::arg("level") = "");
  module.def("shuffle", &shuffle_at, py::arg("dst"), py::arg("src"), py::arg("nbytes"),
             py::arg("element_bytes"), py::kw_only(), py::arg("level") = "");
  module.def("unshuffle", &unshuffle_at, py::arg("dst"), py::arg("src"), py::arg("nbytes"),
             py::arg("element_bytes"), py::kw_only(), py::arg("level") = "");
}

}  // namespace hpresil::bindings
