#include "communicator/communicator.h"

#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <tuple>

#include "base/error.h"
#include "bindings/module.h"
#include "communicator/bulk_init.h"
#include "communicator/change.h"
#include "communicator/commit_gate.h"
#include "communicator/nccl_library.h"
#include "communicator/operations.h"

namespace hpresil::bindings {
namespace {

using Released = py::call_guard<py::gil_scoped_release>;
using Shared = std::shared_ptr<Communicator>;
using Spec = std::tuple<std::string, long, int, int, std::vector<std::string>>;
using Call = std::tuple<std::string, Address, Address, std::size_t, int>;

struct Nccl {
  std::shared_ptr<const NcclApi> api;
};

NcclUniqueId id_of(const std::string& bytes) {
  NcclUniqueId id{};
  if (bytes.size() != sizeof(id.internal)) {
    fail("an id of NCCL has 128 bytes, not " + std::to_string(bytes.size()));
  }
  std::memcpy(id.internal, bytes.data(), sizeof(id.internal));
  return id;
}

std::string text_of(const NcclUniqueId& id) { return {id.internal, sizeof(id.internal)}; }

std::shared_ptr<DeviceApi> devices(bool host) { return host ? host_device_api() : cuda_device_api(); }

std::vector<Shared> begin(const Nccl& nccl, const std::vector<Spec>& specs, int device) {
  std::vector<InitSpec> all;
  for (const auto& [name, generation, rank, ranks, ids] : specs) {
    InitSpec spec{{name, generation, rank, ranks}, {}};
    for (const std::string& id : ids) {
      spec.ids.push_back(id_of(id));
    }
    all.push_back(std::move(spec));
  }
  const py::gil_scoped_release released;
  return begin_init(nccl.api, *devices(device < 0), device, std::move(all));
}

Kind kind_of(const std::string& name) {
  static const std::vector<std::pair<std::string, Kind>> kKinds = {
      {"all_reduce", Kind::all_reduce}, {"broadcast", Kind::broadcast},           {"reduce", Kind::reduce},
      {"all_gather", Kind::all_gather}, {"reduce_scatter", Kind::reduce_scatter}, {"send", Kind::send},
      {"receive", Kind::receive}};
  for (const auto& [known, kind] : kKinds) {
    if (known == name) {
      return kind;
    }
  }
  fail("no operation is named '" + name + "'");
}

void run_calls(Communicator& self, const std::vector<std::vector<Call>>& calls, Address stream,
               const std::string& what, double seconds, bool wait) {
  std::vector<OperationGroup> groups;
  for (const auto& some : calls) {
    OperationGroup group;
    for (const auto& [name, from, to, nbytes, peer] : some) {
      group.push_back({kind_of(name), pointer(from), pointer(to), nbytes, peer});
    }
    groups.push_back(std::move(group));
  }
  const py::gil_scoped_release released;
  if (wait) {
    run(self, *cuda_device_api(), groups, pointer(stream), Deadline(seconds, what));
  } else {
    enqueue(self, groups, pointer(stream), Deadline(seconds, what));
  }
}

Shared grow_here(Communicator& self, int ranks, const std::optional<std::string>& id, long generation,
                 double seconds) {
  NcclUniqueId bytes{};
  if (id.has_value()) {
    bytes = id_of(*id);
  }
  const py::gil_scoped_release released;
  return grow(self, ranks, id.has_value() ? &bytes : nullptr, generation, Deadline(seconds, "grow"));
}

void bind_nccl(py::module_& module) {
  py::class_<Nccl>(module, "Nccl")
      .def_static(
          "open", [](const std::string& name) { return Nccl{open_nccl(name)}; },
          py::arg("name") = "libnccl.so.2", Released())
      .def_property_readonly("version", [](const Nccl& self) { return nccl_version_text(self.api->version); })
      .def_property_readonly("origin", [](const Nccl& self) { return self.api->origin; })
      .def_property_readonly("features", [](const Nccl& self) { return features_of(*self.api); })
      .def("unique_id",
           [](const Nccl& self) {
             NcclUniqueId id{};
             {
               const py::gil_scoped_release released;
               check_nccl(*self.api, self.api->get_unique_id(&id), "ncclGetUniqueId");
             }
             return py::bytes(text_of(id));
           })
      .def("begin", &begin, py::arg("specs"), py::arg("device"))
      .def(
          "join",
          [](const Nccl& self, const std::string& name, long generation, int rank, int ranks,
             const std::string& id, double seconds) {
            const NcclUniqueId bytes = id_of(id);
            const py::gil_scoped_release released;
            return join(self.api, {name, generation, rank, ranks}, bytes, Deadline(seconds, "join"));
          },
          py::arg("name"), py::arg("generation"), py::arg("rank"), py::arg("ranks"), py::arg("id"),
          py::arg("seconds"));
  module.def(
      "finish_init",
      [](const std::vector<Shared>& pending, double seconds) {
        finish_init(pending, Deadline(seconds, "the initialisation"));
      },
      py::arg("pending"), py::arg("seconds"), Released());
}

void bind_changes(py::class_<Communicator, Shared>& type) {
  type.def(
          "revoke", [](Communicator& self, double seconds) { revoke(self, Deadline(seconds, "revoke")); },
          py::arg("seconds"), Released())
      .def(
          "shrink",
          [](Communicator& self, std::vector<int> excluded, long generation, double seconds) {
            return shrink(self, std::move(excluded), generation, Deadline(seconds, "shrink"));
          },
          py::arg("excluded"), py::arg("generation"), py::arg("seconds"), Released())
      .def("grow_id", [](Communicator& self) { return py::bytes(text_of(grow_id(self))); })
      .def("grow", &grow_here, py::arg("ranks"), py::arg("id"), py::arg("generation"), py::arg("seconds"))
      .def(
          "split",
          [](Communicator& self, int colour, const std::vector<std::string>& domains, const std::string& name,
             int rank, int ranks, double seconds) {
            const Place place{name, self.place().generation, rank, ranks};
            return split(self, colour, domains, place, Deadline(seconds, "split"));
          },
          py::arg("colour"), py::arg("domains"), py::arg("name"), py::arg("rank"), py::arg("ranks"),
          py::arg("seconds"), Released())
      .def(
          "suspend", [](Communicator& self, double seconds) { suspend(self, Deadline(seconds, "suspend")); },
          py::arg("seconds"), Released())
      .def(
          "resume", [](Communicator& self, double seconds) { resume(self, Deadline(seconds, "resume")); },
          py::arg("seconds"), Released());
}

void bind_life(py::module_& module) {
  py::class_<Communicator, Shared> type(module, "NcclCommunicator");
  type.def_property_readonly("name", [](const Communicator& self) { return self.place().name; })
      .def_property_readonly("generation", [](const Communicator& self) { return self.place().generation; })
      .def_property_readonly("rank", [](const Communicator& self) { return self.place().rank; })
      .def_property_readonly("ranks", [](const Communicator& self) { return self.place().ranks; })
      .def_property_readonly("reason", &Communicator::reason)
      .def(
          "wait",
          [](Communicator& self, const std::string& what, double seconds) {
            self.wait(Deadline(seconds, what));
          },
          py::arg("what"), py::arg("seconds"), Released())
      .def("abort", &Communicator::abort, py::arg("reason"), py::arg("seconds"), Released())
      .def("close", &Communicator::close, py::arg("seconds"), Released())
      .def("run", &run_calls, py::arg("groups"), py::arg("stream"), py::arg("what"), py::arg("seconds"),
           py::arg("wait") = true);
  bind_changes(type);
}

void bind_gate(py::module_& module) {
  py::class_<CommitGate>(module, "CommitGate")
      .def(py::init([](Address flag, Address ballots, int ranks, bool host) {
             return CommitGate(devices(host), reinterpret_cast<float*>(flag),
                               reinterpret_cast<std::uint64_t*>(ballots), ranks);
           }),
           py::arg("flag"), py::arg("ballots"), py::arg("ranks"), py::kw_only(), py::arg("host"))
      .def(
          "close",
          [](CommitGate& self, std::uint64_t generation, std::uint64_t step, Address stream) {
            return self.close(generation, step, pointer(stream));
          },
          py::arg("generation"), py::arg("step"), py::arg("stream") = 0)
      .def(
          "open", [](CommitGate& self, Address stream) { self.open(pointer(stream)); },
          py::arg("stream") = 0);
}

}  // namespace

void bind_communicator(py::module_& module) {
  bind_life(module);
  bind_nccl(module);
  bind_gate(module);
}

}  // namespace hpresil::bindings
