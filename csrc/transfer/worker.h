// One thread of a fetch: a connection at a time to the source in its slot, until nothing is missing.
#pragma once

#include <optional>

#include "transfer/fetch.h"
#include "transfer/stream.h"

namespace hpresil::transfer {

// Thread safety: one thread. Nothing is thrown out of run().
class FetchWorker {
 public:
  FetchWorker(FrameFetch& fetch, int number);
  void run();

 private:
  // A connection that the fetch can shut from outside as long as this lives.
  class Open {
   public:
    Open(FrameFetch& fetch, Connection made) : fetch_(fetch), connection_(std::move(made)) {
      const std::lock_guard lock(fetch_.lock_);
      fetch_.open_.insert(&connection_);
      if (fetch_.stopping_) {
        connection_.shut();
      }
    }
    ~Open() {
      const std::lock_guard lock(fetch_.lock_);
      fetch_.open_.erase(&connection_);
    }
    Open(const Open&) = delete;
    Open& operator=(const Open&) = delete;

    Connection& operator*() { return connection_; }
    Connection* operator->() { return &connection_; }

   private:
    FrameFetch& fetch_;
    Connection connection_;
  };

  std::optional<std::size_t> source_now();
  bool over() const;
  void attempt(std::size_t source);
  void note_break(std::size_t source, const std::string& reason, const std::string& what, bool for_good);
  void pause(int breaks);

  void fetch_over_network(std::size_t source);
  std::optional<Route> route_to(std::size_t source);
  void measure_routes(std::size_t source);
  double measure(std::size_t source, const Route& route);
  std::uint64_t pull(std::size_t source, Stream& stream, std::size_t most);
  std::optional<Chunk> take();
  bool wait_for_missing();
  void keep(std::size_t source, const Stream::Arrived& arrived);

  void wait_for_copy(std::size_t source);
  void copy_here(std::size_t source);
  std::vector<Chunk> take_all();
  std::uint32_t copy_all(const std::vector<Chunk>& chunks, const std::byte* from);

  Greeting introduce(Connection& connection, Purpose purpose);

  FrameFetch& fetch_;
  Frame& frame_;
  int number_;
  std::size_t slot_;
  bool first_of_slot_;
  int breaks_ = 0;
};

}  // namespace hpresil::transfer
