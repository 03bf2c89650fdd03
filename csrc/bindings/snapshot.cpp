#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <tuple>

#include "base/error.h"
#include "bindings/module.h"
#include "bindings/shared_mapping.h"
#include "snapshot/arena.h"
#include "snapshot/copier.h"
#include "snapshot/priority.h"
#include "snapshot/sealed_frame.h"

namespace hpresil::bindings {
namespace {

using Source = std::tuple<Address, std::size_t, std::size_t, std::size_t>;  // address, offset, nbytes, place

// A copier that keeps the mapping it fills.
struct PyCopier {
  PyCopier(int threads, double share) : copier({threads, share}) {}

  Copier copier;
  py::object mapping;
};

std::vector<std::byte> bytes_of_object(const py::bytes& data) {
  const std::string_view view = data;
  std::vector<std::byte> copy(view.size());
  std::ranges::copy(std::as_bytes(std::span(view)), copy.begin());
  return copy;
}

HeaderPage page_of(const py::bytes& header) {
  const std::string_view view = header;
  HeaderPage page{};
  expects(view.size() <= page.size(), "a header is at most a page");
  std::ranges::copy(std::as_bytes(std::span(view)), page.begin());
  return page;
}

void begin(PyCopier& self, const py::object& target, const py::bytes& header, const py::bytes& manifest,
           const std::vector<std::uint32_t>& sums, const std::vector<Source>& sources) {
  const auto& mapping = py::cast<SharedMapping&>(target);
  expects(mapping.writable(), "a frame is filled through a writable mapping");
  Contents contents{mapping.open_data(),
                    mapping.bytes(),
                    unpack_header(page_of(header), mapping.bytes()),
                    bytes_of_object(manifest),
                    sums,
                    {}};
  contents.tensors.reserve(sources.size());
  for (const auto& [address, offset, nbytes, place] : sources) {
    contents.tensors.push_back({pointer(address), offset, nbytes, place});
  }
  {
    const py::gil_scoped_release released;
    self.copier.begin(std::move(contents));
  }
  self.mapping = py::memoryview(target);  // a view: the mapping cannot be closed while it is filled
}

py::tuple wait(PyCopier& self, double timeout_s) {
  expects(timeout_s >= 0, "a timeout cannot be negative");
  Filled filled{};
  bool idle = false;
  {
    const py::gil_scoped_release released;
    filled = self.copier.wait(static_cast<std::int64_t>(std::min(timeout_s, 1e9) * 1e9));
    idle = self.copier.idle();
  }
  if (idle) {
    self.mapping = py::none();
  }
  return py::make_tuple(idle, filled.sealed, filled.nbytes, filled.helped);
}

py::object sealed_version(const py::object& target) {
  const auto& mapping = py::cast<SharedMapping&>(target);
  const std::byte* data = mapping.open_data();
  const std::size_t nbytes = mapping.bytes();
  std::int64_t version = 0;
  try {
    const py::gil_scoped_release released;
    version = SealedFrame(data, nbytes).header().version;
  } catch (const NativeError&) {
    return py::none();
  }
  return py::int_(version);
}

}  // namespace

void bind_snapshot(py::module_& module) {
  module.def(
      "arena",
      [](const std::string& name, std::size_t nbytes) {
        Arena made = create_arena(name, nbytes);
        return py::make_tuple(made.fd.release(), made.nbytes, made.note);
      },
      py::arg("name"), py::arg("nbytes"));
  module.def(
      "fault_in",
      [](Address address, std::size_t nbytes, int threads) { fault_in(pointer(address), nbytes, threads); },
      py::arg("address"), py::arg("nbytes"), py::arg("threads") = 1,
      py::call_guard<py::gil_scoped_release>());
  module.def("may_raise_threads", &may_raise, py::call_guard<py::gil_scoped_release>());
  module.def("sealed_version", &sealed_version, py::arg("mapping"));
  py::class_<PyCopier>(module, "Copier")
      .def(py::init<int, double>(), py::arg("threads") = 1, py::arg("share") = 1.0,
           py::call_guard<py::gil_scoped_release>())
      .def("begin", &begin, py::arg("mapping"), py::arg("header"), py::arg("manifest"), py::arg("sums"),
           py::arg("sources"))
      .def("wait", &wait, py::arg("timeout_s"))
      .def("cancel", [](PyCopier& self) { self.copier.cancel(); })
      .def_property_readonly("idle", [](const PyCopier& self) { return self.copier.idle(); });
}

}  // namespace hpresil::bindings
