// One version's bytes as transfers see them: which chunks are here, and the lasting check of each.
//
// The check of a chunk is a GMAC under a key that follows from the job's key, generation, version, size, grid
// and the frame's *origin*, a random number of whoever first had the bytes; its number is the chunk's place.
// So it is computed once, however often and however far the chunk travels: a receiver keeps it and passes it
// on. On a connection it is itself covered by the sequence of that connection (handshake.h), which is what
// refuses replays and chunks in another's place.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "memory/mapping.h"
#include "memory/memfd.h"
#include "transfer/chunk_map.h"
#include "transfer/handshake.h"

namespace hpresil::transfer {

struct Identity {
  std::uint64_t generation;
  std::uint64_t version;
};

// The lasting check of a chunk, and whose number its key follows from.
struct Seal {
  Tag origin;
  Tag content;
};

// Computes lasting checks of one frame's chunks. Thread safety: none.
class ContentCheck {
 public:
  ContentCheck(const JobKey& key, Identity identity, Grid grid);

  void begin(const Tag& origin, const Chunk& chunk);
  void add(Bytes piece) { gmac_->add(piece); }
  Tag finish() { return gmac_->finish(); }

 private:
  JobKey key_;
  Identity identity_;
  Grid grid_;
  Tag origin_{};
  std::unique_ptr<Gmac> gmac_;
};

enum class Presence { here, coming, never };

// Where a frame's bytes are: in the file `fd` from `begin` on. What lies before is not transferred. `mapped`:
// byte `begin` of the file in this process, kept by the caller for as long as a Frame uses it; null: not
// mapped yet.
struct Location {
  int fd;
  std::uint64_t begin;
  std::byte* mapped;
};

// Invariants: what is here never changes while the frame is offered or received; a chunk that is here is read
// by many threads, one that is not is written by the one that took it. Thread safe.
class Frame {
 public:
  // The descriptor is duplicated. What is not mapped yet is mapped here, writable if the frame is `arriving`.
  Frame(const JobKey& key, Identity identity, Grid grid, const Location& location, bool arriving);

  [[nodiscard]] const JobKey& key() const { return key_; }
  [[nodiscard]] Identity identity() const { return identity_; }
  [[nodiscard]] const Grid& grid() const { return grid_; }
  [[nodiscard]] int fd() const { return fd_.get(); }
  [[nodiscard]] std::uint64_t begin() const { return begin_; }
  [[nodiscard]] std::byte* at(const Chunk& chunk) const { return data_ + chunk.offset; }

  // A chunk has arrived and is right; `seal` is null where it came without one.
  void arrived(std::size_t index, const Seal* seal);

  // Nothing more will arrive.
  void give_up();

  // Whether the chunk is here, after waiting up to `timeout_ns` for it.
  Presence wait_for(std::size_t index, std::int64_t timeout_ns);

  // The check of a chunk that is here; the first call computes it unless the chunk brought its own.
  Seal seal_of(std::size_t index, ContentCheck& check);

 private:
  struct Place {
    bool here;
    bool sealed;
    Seal seal;
  };

  JobKey key_;
  Identity identity_;
  Grid grid_;
  Fd fd_;
  std::uint64_t begin_;
  std::unique_ptr<Mapping> own_;
  std::byte* data_;
  Tag origin_;
  std::mutex lock_;
  std::condition_variable changed_;
  std::vector<Place> places_;
  bool given_up_ = false;
};

}  // namespace hpresil::transfer
