// What the files of the module share: one bind function a part, and how arguments cross.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace hpresil::bindings {

namespace py = pybind11;

using Address = std::uintptr_t;

inline std::byte* pointer(Address address) { return reinterpret_cast<std::byte*>(address); }

void bind_errors(py::module_& module);
void bind_memory(py::module_& module);
void bind_checksum(py::module_& module);
void bind_block_hash(py::module_& module);
void bind_codec(py::module_& module);
void bind_communicator(py::module_& module);
void bind_reduction(py::module_& module);
void bind_snapshot(py::module_& module);
void bind_liveness(py::module_& module);
void bind_device(py::module_& module);
void bind_device_memory(py::module_& module);
void bind_snapshot_stream(py::module_& module);
void bind_transfer(py::module_& module);
void bind_process(py::module_& module);

}  // namespace hpresil::bindings
