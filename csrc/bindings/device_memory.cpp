#include "device/device_memory.h"

#include "bindings/module.h"

namespace hpresil::bindings {
namespace {

using Released = py::call_guard<py::gil_scoped_release>;

DriverApi& driver_of(int device) { return device == kHostDevice ? host_driver() : cuda_driver(); }

// What Python holds. There is no way to unmap but to let go of it: a tensor over the memory holds it, too,
// and cannot be asked whether it is still there.
struct Mapped {
  Mapped(int wanted, int fd, std::size_t size)
      : device(wanted),
        nbytes(size),
        memory(std::make_unique<MappedDeviceMemory>(driver_of(wanted), wanted, fd, size)) {}
  Mapped(const Mapped&) = delete;
  Mapped& operator=(const Mapped&) = delete;
  ~Mapped() {
    PyThreadState* const held = PyEval_SaveThread();  // it waits for the device; pybind11's guard may throw
    memory.reset();
    PyEval_RestoreThread(held);
  }
  [[nodiscard]] bool on_host() const { return device == kHostDevice; }

  int device;
  std::size_t nbytes;
  std::unique_ptr<MappedDeviceMemory> memory;
};

py::dict cuda_array_interface(const Mapped& self) {
  if (self.on_host()) {
    throw py::attribute_error("this is host memory: it has the buffer protocol, and no CUDA address");
  }
  py::dict facts;
  facts["shape"] = py::make_tuple(self.nbytes);
  facts["typestr"] = "|u1";
  facts["data"] = py::make_tuple(reinterpret_cast<Address>(self.memory->data()), false);
  facts["strides"] = py::none();
  facts["version"] = 3;
  return facts;
}

int get_view(PyObject* self, Py_buffer* view, int flags) {
  const auto& mapped = py::cast<const Mapped&>(py::handle(self));
  if (!mapped.on_host()) {
    PyErr_SetString(PyExc_BufferError, "this is device memory: it has __cuda_array_interface__ instead");
    return -1;
  }
  return PyBuffer_FillInfo(view, self, mapped.memory->data(), static_cast<Py_ssize_t>(mapped.nbytes), 0,
                           flags);
}

void give_buffer_protocol(PyHeapTypeObject* type) {
  type->as_buffer.bf_getbuffer = get_view;
  type->ht_type.tp_as_buffer = &type->as_buffer;
}

}  // namespace

void bind_device_memory(py::module_& module) {
  module.attr("HOST_DEVICE") = kHostDevice;
  py::class_<HeldMemory>(module, "HeldMemory")
      .def(py::init([](int device, std::size_t nbytes) {
             return std::make_unique<HeldMemory>(driver_of(device), device, nbytes);
           }),
           py::arg("device"), py::arg("nbytes"), Released())
      .def_property_readonly("allocated_bytes", &HeldMemory::bytes)
      .def("export_fd", [](const HeldMemory& self) { return self.export_fd().release(); }, Released());
  py::class_<Mapped>(module, "MappedDeviceMemory", py::custom_type_setup(give_buffer_protocol))
      .def(py::init<int, int, std::size_t>(), py::arg("device"), py::arg("fd"), py::arg("nbytes"), Released())
      .def_readonly("device", &Mapped::device)
      .def_readonly("nbytes", &Mapped::nbytes)
      .def_property_readonly(
          "address", [](const Mapped& self) { return reinterpret_cast<Address>(self.memory->data()); })
      .def_property_readonly("__cuda_array_interface__", &cuda_array_interface);
}

}  // namespace hpresil::bindings
