#include "checksum/crc32c.h"

#include <pybind11/stl.h>

#include <tuple>

#include "bindings/buffer.h"
#include "bindings/module.h"

namespace hpresil::bindings {
namespace {

std::uint32_t checksum_at(Address address, std::size_t nbytes, std::uint32_t seed, const std::string& level) {
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  return crc32c(pointer(address), nbytes, seed, chosen);
}

std::uint32_t checksum_of(const py::object& data, std::uint32_t seed, const std::string& level) {
  const View view(data);
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  return crc32c(view.data(), view.bytes(), seed, chosen);
}

std::vector<std::uint32_t> copy_many(const std::vector<std::tuple<Address, Address, std::size_t>>& pairs,
                                     int threads, const std::string& level) {
  std::vector<Piece> pieces;
  pieces.reserve(pairs.size());
  for (const auto& [to, from, nbytes] : pairs) {
    pieces.push_back({pointer(to), pointer(from), nbytes});
  }
  const CpuLevel chosen = cpu_level_named(level);
  const py::gil_scoped_release released;
  return copy_crc32c(pieces, threads, chosen);
}

void stream_one(Address to, Address from, std::size_t nbytes, int threads) {
  const Piece piece{pointer(to), pointer(from), nbytes};
  const py::gil_scoped_release released;
  stream_copy({&piece, 1}, threads, cpu_level());
}

std::uint32_t copy_one(Address to, Address from, std::size_t nbytes, int threads, const std::string& level) {
  return copy_many({{to, from, nbytes}}, threads, level).front();
}

}  // namespace

void bind_checksum(py::module_& module) {
  module.def("crc32c", &checksum_at, py::arg("address"), py::arg("nbytes"), py::arg("seed") = 0,
             py::kw_only(), py::arg("level") = "");
  module.def("crc32c", &checksum_of, py::arg("data"), py::arg("seed") = 0, py::kw_only(),
             py::arg("level") = "");
  module.def("crc32c_join", &crc32c_join, py::arg("first"), py::arg("second"), py::arg("second_bytes"));
  module.def("copy_crc32c", &copy_one, py::arg("dst"), py::arg("src"), py::arg("nbytes"),
             py::arg("threads") = 1, py::kw_only(), py::arg("level") = "");
  module.def("stream_copy", &stream_one, py::arg("dst"), py::arg("src"), py::arg("nbytes"),
             py::arg("threads") = 1);
  module.def("copy_many", &copy_many, py::arg("pairs"), py::arg("threads") = 1, py::kw_only(),
             py::arg("level") = "");
}

}  // namespace hpresil::bindings
