// Who is asked next: a fetch uses up to `at_once` sources at a time, each in a slot, in the order given.
// Pure.
//
// A source keeps its slot through breaks as long as chunks come from it between them. A worker whose
// connections to it break `kTries` times in a row, with nothing arriving from it meanwhile, gives it up for
// all; the next one in the list that is in no slot takes its place. So with one at once the list is a chain:
// the predecessor, who is before it, the source.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace hpresil::transfer {

// Thread safety: none; the owner serialises.
class Sources {
 public:
  static constexpr int kTries = 4;

  Sources(std::size_t count, std::size_t at_once);

  // The source in that slot, or nothing when there is none left for it.
  std::optional<std::size_t> in_slot(std::size_t slot);

  // A connection of `worker` to it broke; `arrived`: chunks that came from it so far. Returns how often in a
  // row that happened without any arriving.
  int broke(std::size_t source, int worker, std::uint64_t arrived);

  // It serves as many as it may: the next one is asked instead. The last one is asked again, as often as need
  // be: whoever it serves will be done.
  void full(std::size_t source);

  // It will never have the version, or cannot be asked.
  void give_up(std::size_t source) { given_up_[source] = true; }

 private:
  struct Breaks {
    int in_a_row = 0;
    std::uint64_t arrived = 0;
  };

  std::vector<bool> given_up_;
  std::map<std::pair<std::size_t, int>, Breaks> breaks_;
  std::vector<std::optional<std::size_t>> slots_;
  std::size_t next_ = 0;
};

// The order in which the routes to one source are tried, from their measured bytes per second (0: it could
// not be reached). The fastest first; among those within a tenth of the fastest the one that was named first,
// so that noise decides as little as possible.
std::vector<std::size_t> ranked(const std::vector<double>& bytes_per_s);

}  // namespace hpresil::transfer
