#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "bindings/module.h"
#include "transfer/fetch.h"
#include "transfer/libcrypto.h"
#include "transfer/server.h"

namespace hpresil::bindings {
namespace {

using transfer::FetchSettings;
using transfer::Frame;
using transfer::FrameFetch;
using transfer::FrameServer;
using transfer::JobKey;
using transfer::Route;
using transfer::Source;
using transfer::SourceReport;

constexpr std::uint32_t kChunkBytes = 1U << 20;

using Routes = std::vector<std::tuple<std::string, std::string, int>>;
using NamedSources = std::vector<std::tuple<std::string, Routes, std::string>>;

std::int64_t ns(double seconds) { return static_cast<std::int64_t>(std::clamp(seconds, 0.0, 1e9) * 1e9); }
std::uint32_t milliseconds(double seconds) {
  return static_cast<std::uint32_t>(std::clamp(seconds, 0.0, 3600.0) * 1e3);
}
double seconds(std::int64_t nanoseconds) { return static_cast<double>(nanoseconds) / 1e9; }

// Threads are awaited at the end of a server or a fetch: not under the GIL, which another thread may need.
template <typename T>
std::shared_ptr<T> ends_released(std::unique_ptr<T> made) {
  return {made.release(), [](T* object) {
            if (PyGILState_Check() != 0) {
              const py::gil_scoped_release released;
              delete object;
            } else {
              delete object;
            }
          }};
}

JobKey job_key(const py::bytes& secret, const std::string& job) {
  const std::string_view bytes = secret;
  return {std::as_bytes(std::span(bytes)), job};
}

std::vector<Source> sources_of(const NamedSources& given) {
  std::vector<Source> sources;
  for (const auto& [name, routes, unix_path] : given) {
    Source& source = sources.emplace_back(Source{.name = name, .routes = {}, .unix_path = unix_path});
    for (const auto& [from, host, port] : routes) {
      source.routes.push_back(Route{.from = from, .host = host, .port = port});
    }
  }
  return sources;
}

std::shared_ptr<FrameServer> make_server(const py::bytes& secret, const std::string& job,
                                         const std::string& host, int port, const std::string& unix_path,
                                         double handshake_s, double stall_s, double idle_s,
                                         std::size_t most_waiting, std::size_t most_clients) {
  const transfer::ServerSettings settings = {.door = {.host = host,
                                                      .port = port,
                                                      .unix_path = unix_path,
                                                      .handshake_ns = ns(handshake_s),
                                                      .most_waiting = most_waiting},
                                             .stall_ns = ns(stall_s),
                                             .idle_ns = ns(idle_s),
                                             .most_clients = most_clients};
  const JobKey key = job_key(secret, job);
  const py::gil_scoped_release released;
  return ends_released(std::make_unique<FrameServer>(settings, key));
}

py::dict report(const SourceReport& source) {
  py::dict facts;
  facts["received_bytes"] = source.received_bytes;
  facts["breaks"] = source.breaks;
  facts["reasons"] = source.reasons;
  facts["last_error"] = source.last_error;
  facts["measured_bytes_per_s"] = source.measured;
  facts["route"] = source.route;
  return facts;
}

py::bytes here_of(const FrameFetch& fetch) {
  const std::vector<std::uint8_t> here = fetch.here();
  return {reinterpret_cast<const char*>(here.data()), here.size()};
}

std::shared_ptr<FrameFetch> make_fetch(const py::bytes& secret, const std::string& job,
                                       std::uint64_t generation, std::uint64_t version, int fd,
                                       std::uint64_t nbytes, const NamedSources& sources, std::uint64_t begin,
                                       Address address, std::uint32_t chunk_bytes, std::size_t streams,
                                       std::size_t at_once, std::size_t window, double connect_s,
                                       double stall_s, double deadline_s, double appear_s, int copy_threads,
                                       const py::bytes& here) {
  const JobKey key = job_key(secret, job);
  const std::string_view places = here;
  const std::vector<std::uint8_t> chunks_here(places.begin(), places.end());
  const FetchSettings settings = {.streams = streams,
                                  .at_once = at_once,
                                  .window = window,
                                  .connect_ns = ns(connect_s),
                                  .stall_ns = ns(stall_s),
                                  .deadline_ns = ns(deadline_s),
                                  .appear_ms = milliseconds(appear_s),
                                  .copy_threads = copy_threads};
  auto wanted = sources_of(sources);
  const py::gil_scoped_release released;
  auto frame = std::make_shared<Frame>(key, transfer::Identity{generation, version},
                                       transfer::Grid{nbytes, chunk_bytes},
                                       transfer::Location{fd, begin, pointer(address)}, true);
  return ends_released(
      std::make_unique<FrameFetch>(std::move(frame), std::move(wanted), settings, chunks_here));
}

std::uint64_t offer_frame(FrameServer& server, std::uint64_t generation, std::uint64_t version, int fd,
                          std::uint64_t nbytes, std::optional<std::uint32_t> crc, std::uint64_t begin,
                          Address address, std::uint32_t chunk_bytes) {
  const py::gil_scoped_release released;
  return server.offer(std::make_shared<Frame>(server.key(), transfer::Identity{generation, version},
                                              transfer::Grid{nbytes, chunk_bytes},
                                              transfer::Location{fd, begin, pointer(address)}, false),
                      crc);
}

py::dict counters_of(const FrameServer& server) {
  py::dict counters;
  counters["sent_bytes"] = server.served().sent.load();
  counters["sent_chunks"] = server.served().chunks.load();
  counters["passed_descriptors"] = server.served().passed.load();
  counters["clients"] = server.clients();
  counters["waiting"] = server.waiting();
  return counters;
}

std::optional<std::uint64_t> size_at(const py::bytes& secret, const std::string& job,
                                     std::uint64_t generation, std::uint64_t version,
                                     const NamedSources& source, double timeout_s, double appear_s) {
  const JobKey key = job_key(secret, job);
  const std::vector<Source> wanted = sources_of(source);
  expects(wanted.size() == 1, "the size is asked of one source");
  const py::gil_scoped_release released;
  try {
    return transfer::ask_size(key, {generation, version}, wanted.front(), ns(timeout_s),
                              milliseconds(appear_s));
  } catch (const transfer::Broken& end) {
    if (end.reason() == "not here") {
      return std::nullopt;
    }
    throw;
  }
}

void bind_server(py::module_& module) {
  const auto released = py::call_guard<py::gil_scoped_release>();
  py::class_<FrameServer, std::shared_ptr<FrameServer>>(module, "FrameServer")
      .def(py::init(&make_server), py::arg("secret"), py::arg("job"), py::kw_only(), py::arg("host") = "",
           py::arg("port") = 0, py::arg("unix_path") = "", py::arg("handshake_s") = 5.0,
           py::arg("stall_s") = 10.0, py::arg("idle_s") = 60.0, py::arg("most_waiting") = 256,
           py::arg("most_clients") = 256)
      .def_property_readonly("port", &FrameServer::port)
      .def("offer", &offer_frame, py::arg("generation"), py::arg("version"), py::arg("fd"), py::arg("nbytes"),
           py::arg("crc") = py::none(), py::kw_only(), py::arg("begin") = 0, py::arg("address") = 0,
           py::arg("chunk_bytes") = kChunkBytes)
      .def(
          "offer_arriving",
          [](FrameServer& self, const FrameFetch& fetch) { return self.offer(fetch.frame(), std::nullopt); },
          py::arg("fetch"), released)
      .def("takers", &FrameServer::takers, py::arg("offer"), released)
      .def(
          "withdraw",
          [](FrameServer& self, std::uint64_t offer, double timeout_s) {
            return self.withdraw(offer, ns(timeout_s));
          },
          py::arg("offer"), py::arg("timeout_s"), released)
      .def("refused", &FrameServer::refused)
      .def("counters", &counters_of)
      .def("close", &FrameServer::close, released);
}

void bind_fetch(py::module_& module) {
  const auto released = py::call_guard<py::gil_scoped_release>();
  py::class_<FrameFetch, std::shared_ptr<FrameFetch>>(module, "FrameFetch")
      .def(py::init(&make_fetch), py::arg("secret"), py::arg("job"), py::arg("generation"),
           py::arg("version"), py::arg("fd"), py::arg("nbytes"), py::arg("sources"), py::kw_only(),
           py::arg("begin") = 0, py::arg("address") = 0, py::arg("chunk_bytes") = kChunkBytes,
           py::arg("streams") = 2, py::arg("at_once") = 1, py::arg("window") = 4, py::arg("connect_s") = 5.0,
           py::arg("stall_s") = 10.0, py::arg("deadline_s") = 600.0, py::arg("appear_s") = 0.0,
           py::arg("copy_threads") = 2, py::arg("here") = py::bytes())
      .def_property_readonly("fd", &FrameFetch::fd)
      .def_property_readonly("state", &FrameFetch::state)
      .def_property_readonly("elapsed_s", [](const FrameFetch& self) { return seconds(self.elapsed_ns()); })
      .def(
          "wait", [](FrameFetch& self, double timeout_s) { return self.wait(ns(timeout_s)); },
          py::arg("timeout_s"), released)
      .def("cancel", &FrameFetch::cancel, released)
      .def("here", &here_of)
      .def("reports", [](const FrameFetch& self) {
        py::list all;
        for (const SourceReport& source : self.reports()) {
          all.append(report(source));
        }
        return all;
      });
}

}  // namespace

void bind_transfer(py::module_& module) {
  bind_fetch(module);  // first: the other's signatures name it
  bind_server(module);
  module.def("open_libcrypto", &transfer::open_libcrypto);
  module.def("frame_bytes_at", &size_at, py::arg("secret"), py::arg("job"), py::arg("generation"),
             py::arg("version"), py::arg("source"), py::arg("timeout_s"), py::arg("appear_s") = 0.0);
}

}  // namespace hpresil::bindings
