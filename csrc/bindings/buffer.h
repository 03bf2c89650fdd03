// Arguments with the buffer protocol.
#pragma once

#include <pybind11/pybind11.h>

namespace hpresil::bindings {

namespace py = pybind11;

// Any object with a contiguous buffer, kept alive and unmoved meanwhile.
class View {
 public:
  explicit View(const py::object& data) {
    if (PyObject_GetBuffer(data.ptr(), &view_, PyBUF_SIMPLE) != 0) {
      throw py::error_already_set();
    }
  }
  ~View() { PyBuffer_Release(&view_); }
  View(const View&) = delete;
  View& operator=(const View&) = delete;

  [[nodiscard]] const std::byte* data() const { return static_cast<const std::byte*>(view_.buf); }
  [[nodiscard]] std::size_t bytes() const { return static_cast<std::size_t>(view_.len); }

 private:
  Py_buffer view_{};
};

}  // namespace hpresil::bindings
