// Which chunks of a frame are here, which are on their way and by whom, which come next. Pure.
//
// Invariants: a chunk is missing, taken by one taker, or here; it becomes here only from its taker's hands;
// what a taker gives back is missing again, and is handed out before what lies behind it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace hpresil::transfer {

struct Chunk {
  std::size_t index;
  std::uint64_t offset;
  std::uint32_t nbytes;
};

// The grid of a frame: chunks of `chunk_bytes`, the last one may be shorter.
struct Grid {
  std::uint64_t frame_bytes;
  std::uint32_t chunk_bytes;

  [[nodiscard]] std::size_t count() const {
    return static_cast<std::size_t>((frame_bytes + chunk_bytes - 1) / chunk_bytes);
  }
  [[nodiscard]] Chunk at(std::size_t index) const;

  // The chunk that is exactly this range, or nothing.
  [[nodiscard]] std::optional<std::size_t> index_of(std::uint64_t offset, std::uint32_t nbytes) const;
};

// Thread safety: none; the owner serialises.
class ChunkMap {
 public:
  // `here`: a byte a chunk, not 0 where it is here already; empty for none.
  ChunkMap(Grid grid, const std::vector<std::uint8_t>& here);

  // The first missing chunk, from now on `taker`'s.
  std::optional<Chunk> take(int taker);

  // `taker` has received and checked it. False if it is not its chunk.
  bool arrived(std::size_t index, int taker);

  // `taker` stops: its chunks are missing again. Returns how many.
  std::size_t give_back(int taker);

  [[nodiscard]] bool complete() const { return here_ == states_.size(); }
  [[nodiscard]] std::size_t here() const { return here_; }
  [[nodiscard]] bool any_missing() const { return here_ + taken_ < states_.size(); }
  [[nodiscard]] std::vector<std::uint8_t> which() const;
  [[nodiscard]] const Grid& grid() const { return grid_; }

 private:
  static constexpr int kMissing = -1;
  static constexpr int kHere = -2;

  Grid grid_;
  std::vector<int> states_;  // kMissing, kHere, or the taker
  std::size_t here_ = 0;
  std::size_t taken_ = 0;
  std::size_t first_missing_ = 0;  // none is missing below it
};

}  // namespace hpresil::transfer
