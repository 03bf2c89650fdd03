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

Grid checked(Grid grid, const Location& location) {
  expects(grid.frame_bytes >= 1 && grid.frame_bytes <= kLargestFrame, "a frame has 1 byte to 16 TiB");
  expects(grid.chunk_bytes >= kLeastChunk && grid.chunk_bytes <= kLargestChunk,
          "a chunk has 4 KiB to 16 MiB");
  expects(location.begin <= kLargestFrame, "a frame begins within the first 16 TiB of its file");
  const std::uint64_t end = location.begin + grid.frame_bytes;
  if (bytes_of(location.fd) < end) {
    fail("descriptor " + std::to_string(location.fd) + " holds " + std::to_string(bytes_of(location.fd)) +
         " bytes, the frame ends at " + std::to_string(end));
  }
  return grid;
}

std::unique_ptr<Mapping> mapped(const Location& location, Grid grid, bool writable) {
  return std::make_unique<Mapping>(location.fd, location.begin + grid.frame_bytes, writable, false);
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

Frame::Frame(const JobKey& key, Identity identity, Grid grid, const Location& location, bool arriving)
    : key_(key),
      identity_(identity),
      grid_(checked(grid, location)),
      fd_(duplicate(location.fd)),
      begin_(location.begin),
      own_(location.mapped == nullptr ? mapped(location, grid, arriving) : nullptr),
      data_(location.mapped == nullptr ? own_->data() + begin_ : location.mapped),
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
