#include "transfer/worker.h"

#include <algorithm>
#include <chrono>
#include <limits>

#include "base/clock.h"
#include "base/error.h"

namespace hpresil::transfer {
namespace {

constexpr std::size_t kMeasuredChunks = 4;
constexpr std::size_t kNoLimit = std::numeric_limits<std::size_t>::max();
constexpr std::chrono::milliseconds kFirstPause{25};
constexpr std::chrono::milliseconds kBeat{100};

constexpr const char* kFull = "too many";
constexpr int kLongestPause = 4;  // in breaks

bool for_good(const std::string& reason) { return reason == "gone" || reason == "not here"; }

}  // namespace

FetchWorker::FetchWorker(FrameFetch& fetch, int number)
    : fetch_(fetch),
      frame_(*fetch.frame_),
      number_(number),
      slot_(static_cast<std::size_t>(number) / fetch.settings_.streams),
      first_of_slot_(static_cast<std::size_t>(number) % fetch.settings_.streams == 0) {}

void FetchWorker::run() {
  while (!over()) {
    const auto source = source_now();
    if (!source) {
      return;
    }
    attempt(*source);
  }
}

std::optional<std::size_t> FetchWorker::source_now() {
  const std::lock_guard lock(fetch_.lock_);
  return fetch_.plan_.in_slot(slot_);
}

bool FetchWorker::over() const {
  const std::lock_guard lock(fetch_.lock_);
  return fetch_.stopping_ || fetch_.chunks_.complete();
}

void FetchWorker::attempt(std::size_t source) {
  try {
    if (fetch_.sources_[source].unix_path.empty()) {
      fetch_over_network(source);
    } else if (first_of_slot_) {
      copy_here(source);
    } else {
      wait_for_copy(source);
    }
  } catch (const Broken& end) {
    note_break(source, end.reason(), end.what(), for_good(end.reason()));
  } catch (const NativeError& error) {
    note_break(source, "not usable", error.what(), true);
  } catch (const std::exception& error) {
    note_break(source, "defect", error.what(), true);
  }
}

void FetchWorker::note_break(std::size_t source, const std::string& reason, const std::string& what,
                             bool never_again) {
  {
    const std::lock_guard lock(fetch_.lock_);
    fetch_.chunks_.give_back(number_);
    fetch_.changed_.notify_all();
    if (fetch_.stopping_ || fetch_.chunks_.complete()) {
      return;
    }
    SourceReport& report = fetch_.reports_[source];
    ++report.breaks;
    ++report.reasons[reason];
    report.last_error = what;
    if (reason == kFull) {
      fetch_.plan_.full(source);
    } else {
      breaks_ = fetch_.plan_.broke(source, number_, report.received_bytes);
    }
    if (never_again) {
      fetch_.plan_.give_up(source);
      return;
    }
  }
  pause(reason == kFull ? kLongestPause : breaks_);
}

void FetchWorker::pause(int breaks) {
  std::unique_lock lock(fetch_.lock_);
  fetch_.changed_.wait_for(lock, kFirstPause * (1 << std::min(breaks, kLongestPause)) / 2,
                           [&] { return fetch_.stopping_ || fetch_.chunks_.complete(); });
}

Greeting FetchWorker::introduce(Connection& connection, Purpose purpose) {
  const Hello hello = {.generation = frame_.identity().generation,
                       .version = frame_.identity().version,
                       .chunk_bytes = frame_.grid().chunk_bytes,
                       .wait_ms = fetch_.settings_.appear_ms,
                       .purpose = purpose,
                       .nonce = {}};
  Greeting greeting = greet(connection, frame_.key(), hello, fetch_.settings_.stall_ns);
  const Verdict verdict = greeting.accept.verdict;
  if (verdict != Verdict::welcome) {
    throw Broken(verdict == Verdict::too_many ? kFull : "not here", words(verdict));
  }
  if (greeting.accept.frame_bytes != frame_.grid().frame_bytes) {
    throw Broken("not here", "its frame has " + std::to_string(greeting.accept.frame_bytes) + " bytes, not " +
                                 std::to_string(frame_.grid().frame_bytes));
  }
  return greeting;
}

// ------------------------------------------------------------------ over a network

void FetchWorker::fetch_over_network(std::size_t source) {
  const auto route = route_to(source);
  if (!route) {
    return;
  }
  Open open(fetch_, Connection::to(*route, fetch_.settings_.connect_ns, [this] { return over(); }));
  const Greeting greeting = introduce(*open, Purpose::chunks);
  Stream stream(*open, greeting.keys, frame_);
  pull(source, stream, kNoLimit);
}

std::optional<Route> FetchWorker::route_to(std::size_t source) {
  const std::vector<Route>& routes = fetch_.sources_[source].routes;
  expects(!routes.empty(), "a source has a route, or a Unix socket");
  if (routes.size() > 1 && first_of_slot_ && fetch_.ranks_[source].empty()) {
    measure_routes(source);
  }
  std::unique_lock lock(fetch_.lock_);
  std::vector<std::size_t>& ranks = fetch_.ranks_[source];
  if (routes.size() == 1) {
    ranks = {0};
  }
  while (ranks.empty() && !fetch_.stopping_ && !fetch_.chunks_.complete() &&
         fetch_.plan_.in_slot(slot_) == source) {
    fetch_.changed_.wait_for(lock, kBeat);
  }
  if (ranks.empty()) {
    return std::nullopt;
  }
  const Route& route = routes[ranks[static_cast<std::size_t>(std::max(breaks_ - 1, 0)) % ranks.size()]];
  fetch_.reports_[source].route = route.name();
  return route;
}

void FetchWorker::measure_routes(std::size_t source) {
  const std::vector<Route>& routes = fetch_.sources_[source].routes;
  std::vector<double> speeds;
  for (const Route& route : routes) {
    speeds.push_back(over() ? 0 : measure(source, route));
  }
  const std::lock_guard lock(fetch_.lock_);
  for (std::size_t i = 0; i < routes.size(); ++i) {
    fetch_.reports_[source].measured[routes[i].name()] = speeds[i];
  }
  fetch_.ranks_[source] = ranked(speeds);
  fetch_.changed_.notify_all();
}

double FetchWorker::measure(std::size_t source, const Route& route) {
  try {
    Open open(fetch_, Connection::to(route, fetch_.settings_.connect_ns, [this] { return over(); }));
    const Greeting greeting = introduce(*open, Purpose::chunks);
    Stream stream(*open, greeting.keys, frame_);
    const std::int64_t begun = monotonic_ns();
    const auto bytes = static_cast<double>(pull(source, stream, kMeasuredChunks));
    return bytes * 1e9 / static_cast<double>(std::max<std::int64_t>(monotonic_ns() - begun, 1));
  } catch (const NativeError& error) {
    const std::lock_guard lock(fetch_.lock_);
    fetch_.chunks_.give_back(number_);
    fetch_.reports_[source].last_error = error.what();
    fetch_.changed_.notify_all();
    return 0;
  }
}

std::uint64_t FetchWorker::pull(std::size_t source, Stream& stream, std::size_t most) {
  std::uint64_t bytes = 0;
  std::size_t asked = 0;
  while (true) {
    while (stream.outstanding() < fetch_.settings_.window && asked < most) {
      const auto chunk = take();
      if (!chunk) {
        break;
      }
      stream.ask(*chunk);
      ++asked;
    }
    if (stream.outstanding() == 0) {
      if (asked >= most || !wait_for_missing()) {
        return bytes;
      }
      continue;
    }
    const Stream::Arrived arrived = stream.receive();
    keep(source, arrived);
    bytes += arrived.chunk.nbytes;
  }
}

std::optional<Chunk> FetchWorker::take() {
  const std::lock_guard lock(fetch_.lock_);
  return fetch_.stopping_ ? std::nullopt : fetch_.chunks_.take(number_);
}

bool FetchWorker::wait_for_missing() {
  std::unique_lock lock(fetch_.lock_);
  const auto decided = [&] {
    return fetch_.stopping_ || fetch_.chunks_.complete() || fetch_.chunks_.any_missing();
  };
  while (!fetch_.changed_.wait_for(lock, kBeat, decided)) {
  }
  return !fetch_.stopping_ && fetch_.chunks_.any_missing();
}

void FetchWorker::keep(std::size_t source, const Stream::Arrived& arrived) {
  frame_.arrived(arrived.chunk.index, &arrived.seal);
  const std::lock_guard lock(fetch_.lock_);
  fetch_.chunks_.arrived(arrived.chunk.index, number_);
  fetch_.reports_[source].received_bytes += arrived.chunk.nbytes;
  if (fetch_.chunks_.complete()) {
    fetch_.changed_.notify_all();
  }
}

}  // namespace hpresil::transfer
