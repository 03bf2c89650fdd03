#include <pybind11/stl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>

#include "base/clock.h"
#include "base/error.h"
#include "base/thread.h"
#include "bindings/module.h"
#include "liveness/death_watch.h"
#include "liveness/fatal_signals.h"
#include "liveness/holder.h"
#include "liveness/page.h"
#include "liveness/stack_reader.h"
#include "liveness/stack_signals.h"

namespace hpresil::bindings {
namespace {

// A page and, on the worker's side, its holder.
struct PyPage {
  std::shared_ptr<Page> page;
  std::shared_ptr<Holder> holder;

  [[nodiscard]] Holder& held() const {
    expects(holder != nullptr, "this page is not held by this process: call hold() first");
    return *holder;
  }
  void hold() {
    expects(holder == nullptr, "this process holds the page already");
    const py::gil_scoped_release released;
    holder = Holder::start(page);
  }
};

std::int64_t nanoseconds(double seconds) {
  expects(seconds >= 0, "a timeout cannot be negative");
  return static_cast<std::int64_t>(std::min(seconds, 1e9) * 1e9);
}

// Waits in slices, so that Ctrl-C is answered.
std::uint32_t wait_generation(const PyPage& self, std::uint32_t above, double timeout_s) {
  constexpr std::int64_t kSliceNs = 100'000'000;
  const std::int64_t end = monotonic_ns() + nanoseconds(timeout_s);
  for (;;) {
    const std::int64_t left = end - monotonic_ns();
    std::uint32_t generation = 0;
    {
      const py::gil_scoped_release released;
      generation = self.page->wait_generation(above, std::clamp<std::int64_t>(left, 0, kSliceNs));
    }
    if (generation > above || left <= kSliceNs) {
      return generation;
    }
    if (PyErr_CheckSignals() != 0) {
      throw py::error_already_set();
    }
  }
}

void install_handlers(const PyPage& self) {
  const char* wanted = std::getenv("HPRESIL_CORE");
  if (wanted == nullptr || std::string(wanted) != "1") {
    forbid_core_dumps();
  }
  install_fatal_handlers(self.page);
}

py::tuple install_stacks(const PyPage& self) {
  install_stack_handlers(self.page);
  return py::make_tuple(text_signal(), text_fd(*self.page));
}

StackReport wait_stacks(const PyPage& self, pid_t pid, double timeout_s) {
  const std::int64_t timeout_ns = nanoseconds(timeout_s);
  const py::gil_scoped_release released;
  return wait_for_stacks(*self.page, pid, timeout_ns);
}

// In a thread of its own with the lowest priority: a recovery is under way, and nobody waits for names.
std::string described(const StackReport& report) {
  const py::gil_scoped_release released;
  std::string text;
  start_thread("hpresil-stacks", [&] {
    setpriority(PRIO_PROCESS, 0, 19);  // of this thread alone
    text = describe(report);
  }).join();
  return text;
}

void bind_stack_report(py::module_& module) {
  py::class_<StackReport>(module, "StackReport")
      // Bytes that are no UTF-8 may be in names of files and functions.
      .def_property_readonly(
          "python",
          [](const StackReport& self) {
            return py::reinterpret_steal<py::str>(PyUnicode_DecodeUTF8(
                self.python.data(), static_cast<Py_ssize_t>(self.python.size()), "replace"));
          })
      .def_readonly("told", &StackReport::told)
      .def_property_readonly("threads", [](const StackReport& self) { return self.threads.size(); })
      .def_property_readonly("answers",
                             [](const StackReport& self) {
                               return std::count_if(
                                   self.threads.begin(), self.threads.end(),
                                   [](const auto& thread) { return !thread.frames.empty(); });
                             })
      .def("describe", [](const StackReport& self) {
        const std::string text = described(self);
        return py::reinterpret_steal<py::str>(
            PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
      });
}

void bind_page_state(py::module_& module) {
  py::class_<PageState>(module, "PageState")
      .def(py::init([](bool held, int fatal_signal, std::int64_t phase, std::int64_t step, std::int64_t slot,
                       std::int64_t stamp_ns, std::uint64_t stamps, std::uint32_t generation, bool ended,
                       std::int64_t native_ns, std::int64_t interpreter_ns) {
             return PageState{held,     ended,  fatal_signal, phase,     step,          slot,
                              stamp_ns, stamps, generation,   native_ns, interpreter_ns};
           }),
           py::kw_only(), py::arg("held") = false, py::arg("fatal_signal") = 0, py::arg("phase") = 0,
           py::arg("step") = -1, py::arg("slot") = -1, py::arg("stamp_ns") = 0, py::arg("stamps") = 0,
           py::arg("generation") = 0, py::arg("ended") = false, py::arg("native_ns") = 0,
           py::arg("interpreter_ns") = 0)
      .def_readonly("held", &PageState::held)
      .def_readonly("ended", &PageState::ended)
      .def_readonly("fatal_signal", &PageState::fatal_signal)
      .def_readonly("phase", &PageState::phase)
      .def_readonly("step", &PageState::step)
      .def_readonly("slot", &PageState::slot)
      .def_readonly("stamp_ns", &PageState::stamp_ns)
      .def_readonly("stamps", &PageState::stamps)
      .def_readonly("generation", &PageState::generation)
      .def_readonly("native_ns", &PageState::native_ns)
      .def_readonly("interpreter_ns", &PageState::interpreter_ns)
      .def("__repr__", [](const PageState& s) {
        return py::str(
                   "PageState(held={}, ended={}, fatal_signal={}, phase={}, step={}, slot={}, stamp_ns={}, "
                   "stamps={}, generation={}, native_ns={}, interpreter_ns={})")
            .format(s.held, s.ended, s.fatal_signal, s.phase, s.step, s.slot, s.stamp_ns, s.stamps,
                    s.generation, s.native_ns, s.interpreter_ns);
      });
}

void bind_stacks(py::class_<PyPage>& page) {
  page.def("install_stack_handlers", &install_stacks)
      .def(
          "ask_for_stacks", [](const PyPage& self, pid_t pid) { return ask_for_stacks(*self.page, pid); },
          py::arg("pid"))
      .def("wait_for_stacks", &wait_stacks, py::arg("pid"), py::arg("timeout_s"))
      .def("beat", [](const PyPage& self) { self.page->interpreter_beat(); });
}

void bind_page(py::module_& module) {
  py::class_<PyPage> page(module, "Page");
  bind_stacks(page);
  page.def_static("create", [] { return PyPage{Page::create(), nullptr}; })
      .def_static(
          "attach", [](int fd) { return PyPage{Page::attach(fd), nullptr}; }, py::arg("fd"))
      .def_property_readonly("fd", [](const PyPage& self) { return self.page->fd(); })
      .def_property_readonly("generation", [](const PyPage& self) { return self.page->generation(); })
      .def("hold", &PyPage::hold)
      .def("give_notice", [](const PyPage& self) { self.held().give_notice(); })
      .def("install_fatal_handlers", &install_handlers)
      .def(
          "stamp",
          [](const PyPage& self, std::int64_t phase, std::int64_t step, std::int64_t slot) {
            self.page->stamp(phase, step, slot);
          },
          py::arg("phase"), py::arg("step"), py::arg("slot"))
      .def(
          "arm_interrupt",
          [](const PyPage& self, std::uint32_t generation, const std::vector<int>& fds) {
            Holder& holder = self.held();
            const py::gil_scoped_release released;
            holder.arm(generation, fds);
          },
          py::arg("generation"), py::arg("fds"))
      .def("disarm_interrupt",
           [](const PyPage& self) {
             Holder& holder = self.held();
             const py::gil_scoped_release released;
             return holder.disarm();
           })
      .def(
          "set_generation",
          [](const PyPage& self, std::uint32_t generation) { self.page->set_generation(generation); },
          py::arg("generation"))
      .def("read", [](const PyPage& self) { return self.page->read(); })
      .def("wait_generation", &wait_generation, py::arg("above"), py::arg("timeout_s"));
}

void bind_death_watch(py::module_& module) {
  py::class_<DeathWatch>(module, "DeathWatch")
      .def(py::init([](const PyPage& page) { return std::make_unique<DeathWatch>(page.page); }),
           py::arg("page"))
      .def_property_readonly("fd", &DeathWatch::fd)
      .def("reason",
           [](const DeathWatch& self) -> std::optional<std::string> {
             std::string reason = self.reason();
             return reason.empty() ? std::nullopt : std::optional(std::move(reason));
           })
      .def_property_readonly("noticed_ns", &DeathWatch::noticed_ns)
      .def("close", &DeathWatch::close, py::call_guard<py::gil_scoped_release>())
      .def(
          "__enter__", [](DeathWatch& self) -> DeathWatch& { return self; },
          py::return_value_policy::reference_internal)
      .def("__exit__", [](DeathWatch& self, const py::args& /*what*/) {
        const py::gil_scoped_release released;
        self.close();
      });
}

}  // namespace

void bind_liveness(py::module_& module) {
  bind_page_state(module);
  bind_stack_report(module);
  bind_page(module);
  bind_death_watch(module);
  module.def("forbid_core_dumps", &forbid_core_dumps);
}

}  // namespace hpresil::bindings
