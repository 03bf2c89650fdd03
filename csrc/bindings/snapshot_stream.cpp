#include "device/snapshot_stream.h"

#include <pybind11/stl.h>

#include <tuple>

#include "bindings/module.h"
#include "device/block_hash.h"
#include "device/codec.h"

namespace hpresil::bindings {
namespace {

using Released = py::call_guard<py::gil_scoped_release>;

CudaApi::Stream stream_at(Address handle) { return reinterpret_cast<CudaApi::Stream>(handle); }

std::unique_ptr<SnapshotStream> make(int device) {
  return std::make_unique<SnapshotStream>(cuda_runtime(), device);
}

void set_copies(SnapshotStream& self, const std::vector<std::tuple<Address, Address, std::size_t>>& pairs) {
  std::vector<CopyItem> items;
  items.reserve(pairs.size());
  for (const auto& [to, from, nbytes] : pairs) {
    items.push_back({pointer(from), pointer(to), nbytes});
  }
  const py::gil_scoped_release released;
  self.set_copies(items);
}

// One list an item.
std::vector<std::vector<std::uint64_t>> hashes_of(const SnapshotStream& self) {
  const auto all = self.hashes();
  const auto first = self.first_block();
  std::vector<std::vector<std::uint64_t>> lists;
  for (std::size_t i = 0; i < first.size(); ++i) {
    const std::size_t end = i + 1 < first.size() ? first[i + 1] : all.size();
    lists.emplace_back(all.begin() + first[i], all.begin() + end);
  }
  return lists;
}

void bind_stream(py::module_& module) {
  py::class_<SnapshotStream>(module, "SnapshotStream")
      .def(py::init(&make), py::arg("device"), Released())
      .def(
          "register_memory",
          [](SnapshotStream& self, Address address, std::size_t nbytes) {
            return self.register_memory(pointer(address), nbytes);
          },
          py::arg("address"), py::arg("nbytes"), Released())
      .def(
          "unregister_memory",
          [](SnapshotStream& self, Address address) { self.unregister_memory(pointer(address)); },
          py::arg("address"), Released())
      .def("set_copies", &set_copies, py::arg("pairs"))
      .def(
          "begin", [](SnapshotStream& self, Address after) { self.begin(stream_at(after)); },
          py::arg("after"), Released())
      .def(
          "gate", [](SnapshotStream& self, Address next) { self.gate(stream_at(next)); }, py::arg("next"),
          Released())
      .def("wait", &SnapshotStream::wait, py::arg("timeout_s"), Released())
      .def("hashes", &hashes_of)
      .def_property_readonly("complete", &SnapshotStream::complete)
      .def_property_readonly("captures", &SnapshotStream::captures)
      .def_property_readonly("uses_graph", &SnapshotStream::uses_graph)
      .def_property_readonly("notes", &SnapshotStream::notes);
}

}  // namespace

void bind_snapshot_stream(py::module_& module) {
  bind_stream(module);
  module.def(
      "cuda_block_hashes",
      [](Address address, std::size_t nbytes, Address stream, double timeout_s) {
        return device_block_hashes(cuda_runtime(), pointer(address), nbytes, stream_at(stream), timeout_s);
      },
      py::arg("address"), py::arg("nbytes"), py::arg("stream") = 0, py::arg("timeout_s") = 60.0, Released());
  module.def(
      "cuda_xor_delta",
      [](Address to, Address from, Address previous, std::size_t nbytes, Address stream) {
        device_xor_delta(cuda_runtime(), pointer(to), pointer(from), pointer(previous), nbytes,
                         stream_at(stream));
      },
      py::arg("dst"), py::arg("src"), py::arg("previous"), py::arg("nbytes"), py::arg("stream") = 0,
      Released());
  module.def(
      "cuda_shuffle",
      [](Address to, Address from, std::size_t nbytes, std::uint32_t element_bytes, bool back,
         Address stream) {
        device_shuffle(cuda_runtime(), pointer(to), pointer(from), nbytes, element_bytes, back,
                       stream_at(stream));
      },
      py::arg("dst"), py::arg("src"), py::arg("nbytes"), py::arg("element_bytes"), py::arg("back") = false,
      py::arg("stream") = 0, Released());
}

}  // namespace hpresil::bindings
