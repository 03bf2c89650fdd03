#include "checksum/block_hash.h"

#include <pybind11/stl.h>

#include "bindings/buffer.h"
#include "bindings/module.h"

namespace hpresil::bindings {
namespace {

std::vector<std::uint64_t> hashes_at(Address address, std::size_t nbytes, int threads,
                                     const std::string& level) {
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  return block_hashes(pointer(address), nbytes, threads, chosen);
}

std::vector<std::uint64_t> hashes_of(const py::object& data, int threads, const std::string& level) {
  const View view(data);
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  return block_hashes(view.data(), view.bytes(), threads, chosen);
}

}  // namespace

void bind_block_hash(py::module_& module) {
  module.def("hash_block_bytes", [] { return kHashBlockBytes; });
  module.def("block_hashes", &hashes_at, py::arg("address"), py::arg("nbytes"), py::arg("threads") = 1,
             py::kw_only(), py::arg("level") = "");
  module.def("block_hashes", &hashes_of, py::arg("data"), py::arg("threads") = 1, py::kw_only(),
             py::arg("level") = "");
}

}  // namespace hpresil::bindings
