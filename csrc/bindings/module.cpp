// The extension hpresil.native._core. Its typed description is python/hpresil/native/_core.pyi.
#include "bindings/module.h"

#include "base/error.h"

namespace hpresil::bindings {

void bind_errors(py::module_& module) {
  module.attr("NativeError") = py::module_::import("hpresil.base.errors").attr("NativeError");
  // NOLINTNEXTLINE(performance-unnecessary-value-param): the signature is pybind11's
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) {
        std::rethrow_exception(thrown);
      }
    } catch (const NativeError& error) {
      const py::object type = py::module_::import("hpresil.base.errors").attr("NativeError");
      py::set_error(type, error.what());
    }
  });
}

}  // namespace hpresil::bindings

PYBIND11_MODULE(_core, module) {
  using namespace hpresil::bindings;
  bind_errors(module);
  bind_memory(module);
  bind_checksum(module);
  bind_block_hash(module);
  bind_codec(module);
  bind_communicator(module);
  bind_reduction(module);
  bind_snapshot(module);
  bind_liveness(module);
  bind_transfer(module);
  bind_device(module);
  bind_device_memory(module);
  bind_snapshot_stream(module);
  bind_process(module);
}
