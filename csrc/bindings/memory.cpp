#include <fcntl.h>

#include <atomic>
#include <memory>
#include <utility>

#include "base/error.h"
#include "bindings/module.h"
#include "bindings/shared_mapping.h"
#include "memory/memfd.h"

namespace hpresil::bindings {
namespace {

int get_view(PyObject* self, Py_buffer* view, int flags) {
  auto& mapping = py::cast<SharedMapping&>(py::handle(self));
  if (mapping.data() == nullptr) {
    PyErr_SetString(PyExc_BufferError, "the mapping is closed");
    return -1;
  }
  const auto size = static_cast<Py_ssize_t>(mapping.bytes());
  if (PyBuffer_FillInfo(view, self, mapping.data(), size, mapping.writable() ? 0 : 1, flags) != 0) {
    return -1;
  }
  ++mapping.views;
  return 0;
}

void release_view(PyObject* self, Py_buffer* /*view*/) { --py::cast<SharedMapping&>(py::handle(self)).views; }

void give_buffer_protocol(PyHeapTypeObject* type) {
  type->as_buffer.bf_getbuffer = get_view;
  type->as_buffer.bf_releasebuffer = release_view;
  type->ht_type.tp_as_buffer = &type->as_buffer;
}

int seal_bits(bool shrink, bool grow, bool write, bool seal) {
  return (shrink ? F_SEAL_SHRINK : 0) | (grow ? F_SEAL_GROW : 0) | (write ? F_SEAL_WRITE : 0) |
         (seal ? F_SEAL_SEAL : 0);
}

std::unique_ptr<SharedMapping> map(int fd, std::size_t nbytes, bool writable, bool populate) {
  const py::gil_scoped_release released;
  return std::make_unique<SharedMapping>(fd, nbytes, writable, populate);
}

void bind_mapping(py::module_& module) {
  py::class_<SharedMapping>(module, "Mapping", py::custom_type_setup(give_buffer_protocol))
      .def(py::init(&map), py::arg("fd"), py::arg("nbytes"), py::arg("writable") = true,
           py::arg("populate") = false)
      .def_property_readonly(
          "address", [](const SharedMapping& self) { return reinterpret_cast<Address>(self.open_data()); })
      .def_property_readonly("nbytes", [](const SharedMapping& self) { return self.bytes(); })
      .def("close", &SharedMapping::close_checked)
      .def(
          "__enter__", [](SharedMapping& self) -> SharedMapping& { return self; },
          py::return_value_policy::reference_internal)
      .def("__exit__", [](SharedMapping& self, const py::args& /*what*/) { self.close_checked(); });
}

}  // namespace

void bind_memory(py::module_& module) {
  module.def(
      "memfd",
      [](const std::string& name, std::size_t nbytes) { return create_memfd(name, nbytes).release(); },
      py::arg("name"), py::arg("nbytes") = 0);
  module.def(
      "seal",
      [](int fd, bool shrink, bool grow, bool write, bool seal) {
        add_seals(fd, seal_bits(shrink, grow, write, seal));
      },
      py::arg("fd"), py::kw_only(), py::arg("shrink") = false, py::arg("grow") = false,
      py::arg("write") = false, py::arg("seal") = false);
  module.def("seals", &seals_of, py::arg("fd"));
  bind_mapping(module);
}

}  // namespace hpresil::bindings
