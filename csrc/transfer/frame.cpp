#include "transfer/frame.h"

#include <chrono>
#include <cstring>
#include <string>

#include "base/error.h"

namespace hpresil::transfer {
namespace {

Tag random_number() {
  Tag number{};
  fill_random(number);
  return number;
}

Key content_key(const JobKey& key, Identity identity, Grid grid, const Tag& origin) {
  const std::array<std::uint64_t, 4> numbers = {identity.generation, identity.version, grid.frame_bytes,
                                                grid.chunk_bytes};
  std::array<std::byte, sizeof(numbers) + sizeof(Tag)> context{};
  std::memcpy(context.data(), numbers.data(), sizeof(numbers));
  std::memcpy(context.data() + sizeof(numbers), origin.data(), origin.size());
  return key.derive("content", context);
}

Grid checked(Grid grid, int fd) {
  expects(grid.frame_bytes >= 1 && grid.frame_bytes <= kLargestFrame, "a frame has 1 byte to 16 TiB");
  expects(grid.chunk_bytes >= kLeastChunk && grid.chunk_bytes <= kLargestChunk,
          "a chunk has 4 KiB to 16 MiB");
  if (bytes_of(fd) < grid.frame_bytes) {
    fail("descriptor " + std::to_string(fd) + " holds " + std::to_string(bytes_of(fd)) +
         " bytes, the frame has " + std::to_string(grid.frame_bytes));
  }
  return grid;
}

}  // namespace

ContentCheck::ContentCheck(const JobKey& key, Identity identity, Grid grid)
    : key_(key), identity_(identity), grid_(grid) {}

void ContentCheck::begin(const Tag& origin, const Chunk& chunk) {
  if (gmac_ == nullptr || origin != origin_) {
    gmac_ = std::make_unique<Gmac>(content_key(key_, identity_, grid_, origin));
    origin_ = origin;
  }
  gmac_->begin(chunk.offset, chunk.nbytes);
}

Frame::Frame(const JobKey& key, Identity identity, Grid grid, int fd, std::byte* mapped, bool arriving)
    : key_(key),
      identity_(identity),
      grid_(checked(grid, fd)),
      fd_(duplicate(fd)),
      own_(mapped == nullptr ? std::make_unique<Mapping>(fd, grid.frame_bytes, arriving, false) : nullptr),
      data_(mapped == nullptr ? own_->data() : mapped),
      origin_(random_number()),
      places_(grid.count(), Place{.here = !arriving, .sealed = false, .seal = {}}) {}

void Frame::arrived(std::size_t index, const Seal* seal) {
  const std::lock_guard lock(lock_);
  places_[index].here = true;
  if (seal != nullptr) {
    places_[index].sealed = true;
    places_[index].seal = *seal;
  }
  changed_.notify_all();
}

void Frame::give_up() {
  const std::lock_guard lock(lock_);
  given_up_ = true;
  changed_.notify_all();
}

Presence Frame::wait_for(std::size_t index, std::int64_t timeout_ns) {
  std::unique_lock lock(lock_);
  changed_.wait_for(lock, std::chrono::nanoseconds(timeout_ns),
                    [&] { return places_[index].here || given_up_; });
  if (places_[index].here) {
    return Presence::here;
  }
  return given_up_ ? Presence::never : Presence::coming;
}

Seal Frame::seal_of(std::size_t index, ContentCheck& check) {
  {
    const std::lock_guard lock(lock_);
    if (places_[index].sealed) {
      return places_[index].seal;
    }
  }
  // Two threads may do this at once: the same key, number and bytes, so the same check.
  const Chunk chunk = grid_.at(index);
  check.begin(origin_, chunk);
  check.add({at(chunk), chunk.nbytes});
  const Seal seal = {origin_, check.finish()};
  const std::lock_guard lock(lock_);
  if (!places_[index].sealed) {
    places_[index].sealed = true;
    places_[index].seal = seal;
  }
  return places_[index].seal;
}

}  // namespace hpresil::transfer
