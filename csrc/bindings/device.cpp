#include "device/device.h"

#include "bindings/module.h"
#include "device/trace_range.h"

namespace hpresil::bindings {
namespace {

std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
}

py::list devices() {
  std::vector<Device> found;
  {
    const py::gil_scoped_release released;
    found = list_devices();
  }
  py::list result;
  for (const Device& device : found) {
    py::dict row;
    row["index"] = device.index;
    row["name"] = device.name;
    row["uuid"] = device.uuid;
    row["capability"] = std::to_string(device.major) + "." + std::to_string(device.minor);
    row["memory_bytes"] = device.memory_bytes;
    row["multiprocessors"] = device.multiprocessors;
    row["driver_supports"] = version(device.driver_version);
    row["runtime"] = version(device.runtime_version);
    result.append(row);
  }
  return result;
}

py::dict self_test(int index) {
  SelfTest outcome{};
  {
    const py::gil_scoped_release released;
    outcome = test_device(index);
  }
  py::dict row;
  row["passed"] = outcome.passed;
  row["copy_back_gbytes_per_s"] = outcome.copy_back_gbytes_per_s;
  row["problem"] = outcome.problem;
  return row;
}

}  // namespace

void bind_device(py::module_& module) {
  module.def("cuda_devices", &devices);
  module.def("cuda_self_test", &self_test, py::arg("index"));
  module.def(
      "cuda_register",
      [](Address address, std::size_t nbytes) { register_host_memory(pointer(address), nbytes); },
      py::arg("address"), py::arg("nbytes"), py::call_guard<py::gil_scoped_release>());
  module.def(
      "cuda_unregister", [](Address address) { unregister_host_memory(pointer(address)); },
      py::arg("address"), py::call_guard<py::gil_scoped_release>());
  module.def(
      "push_trace_range", [](const std::string& name) { push_trace_range(name.c_str()); }, py::arg("name"));
  module.def("pop_trace_range", &pop_trace_range);
}

}  // namespace hpresil::bindings
