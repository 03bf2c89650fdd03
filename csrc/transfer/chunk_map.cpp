#include "transfer/chunk_map.h"

#include <algorithm>

#include "base/error.h"

namespace hpresil::transfer {

Chunk Grid::at(std::size_t index) const {
  const std::uint64_t offset = std::uint64_t{index} * chunk_bytes;
  const std::uint64_t left = frame_bytes - offset;
  return {index, offset, static_cast<std::uint32_t>(std::min<std::uint64_t>(left, chunk_bytes))};
}

std::optional<std::size_t> Grid::index_of(std::uint64_t offset, std::uint32_t nbytes) const {
  if (offset >= frame_bytes || offset % chunk_bytes != 0) {
    return std::nullopt;
  }
  const auto index = static_cast<std::size_t>(offset / chunk_bytes);
  return at(index).nbytes == nbytes ? std::optional(index) : std::nullopt;
}

ChunkMap::ChunkMap(Grid grid, const std::vector<std::uint8_t>& here)
    : grid_(grid), states_(grid.count(), kMissing) {
  expects(here.empty() || here.size() == states_.size(), "the map of chunks here is of another frame");
  for (std::size_t i = 0; i < here.size(); ++i) {
    if (here[i] != 0) {
      states_[i] = kHere;
      ++here_;
    }
  }
}

std::optional<Chunk> ChunkMap::take(int taker) {
  expects(taker >= 0, "a taker's number is not negative");
  while (first_missing_ < states_.size() && states_[first_missing_] != kMissing) {
    ++first_missing_;
  }
  if (first_missing_ == states_.size()) {
    return std::nullopt;
  }
  states_[first_missing_] = taker;
  ++taken_;
  return grid_.at(first_missing_);
}

bool ChunkMap::arrived(std::size_t index, int taker) {
  if (taker < 0 || index >= states_.size() || states_[index] != taker) {
    return false;
  }
  states_[index] = kHere;
  --taken_;
  ++here_;
  return true;
}

std::size_t ChunkMap::give_back(int taker) {
  std::size_t given = 0;
  for (std::size_t i = 0; taker >= 0 && i < states_.size(); ++i) {
    if (states_[i] == taker) {
      states_[i] = kMissing;
      first_missing_ = std::min(first_missing_, i);
      ++given;
    }
  }
  taken_ -= given;
  return given;
}

std::vector<std::uint8_t> ChunkMap::which() const {
  std::vector<std::uint8_t> found(states_.size());
  std::transform(states_.begin(), states_.end(), found.begin(),
                 [](int state) { return static_cast<std::uint8_t>(state == kHere); });
  return found;
}

}  // namespace hpresil::transfer
