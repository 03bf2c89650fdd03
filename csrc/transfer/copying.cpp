// The part of a fetch's worker that copies a frame of this machine.
#include <fcntl.h>

#include <algorithm>
#include <chrono>

#include "base/cpu.h"
#include "base/error.h"
#include "checksum/crc32c.h"
#include "memory/mapping.h"
#include "transfer/worker.h"

namespace hpresil::transfer {
namespace {

constexpr std::uint64_t kBatchBytes = std::uint64_t{64} << 20;  // between two looks at whether to stop

}  // namespace

void FetchWorker::wait_for_copy(std::size_t source) {
  std::unique_lock lock(fetch_.lock_);
  fetch_.changed_.wait_for(lock, std::chrono::milliseconds(100), [&] {
    return fetch_.stopping_ || fetch_.chunks_.complete() || fetch_.plan_.in_slot(slot_) != source;
  });
}

void FetchWorker::copy_here(std::size_t source) {
  {
    const std::lock_guard lock(fetch_.lock_);
    fetch_.reports_[source].route = fetch_.sources_[source].unix_path;
  }
  Connection made = Connection::to(fetch_.sources_[source].unix_path, fetch_.settings_.connect_ns);
  Open open(fetch_, std::move(made));
  const Greeting greeting = introduce(*open, Purpose::descriptor);
  open->set_patience(fetch_.settings_.deadline_ns);  // it passes the frame once that is complete
  const Fd passed = open->receive_descriptor();
  open->set_patience(fetch_.settings_.stall_ns);
  if ((seals_of(passed.get()) & F_SEAL_SHRINK) == 0) {
    throw Broken("not here", "the frame that was passed is not sealed against shrinking");
  }
  const std::uint64_t end = frame_.begin() + frame_.grid().frame_bytes;
  auto mapping = std::make_unique<Mapping>(passed.get(), end, false, false);
  const std::vector<Chunk> chunks = take_all();
  const std::uint32_t crc =
      copy_all(chunks, mapping->data() + frame_.begin());  // both ends leave the same out
  Stream(*open, greeting.keys, frame_).confirm();
  if (greeting.accept.has_crc && chunks.size() == frame_.grid().count() && crc != greeting.accept.crc) {
    throw Broken("bad chunk", "the copy does not have the frame's checksum");
  }
  for (const Chunk& chunk : chunks) {
    frame_.arrived(chunk.index, nullptr);
  }
  const std::lock_guard lock(fetch_.lock_);
  fetch_.copied_from_ = std::move(mapping);
  for (const Chunk& chunk : chunks) {
    fetch_.chunks_.arrived(chunk.index, number_);
    fetch_.reports_[source].received_bytes += chunk.nbytes;
  }
  fetch_.changed_.notify_all();
}

std::vector<Chunk> FetchWorker::take_all() {
  std::vector<Chunk> chunks;
  while (const auto chunk = take()) {
    chunks.push_back(*chunk);
  }
  return chunks;
}

std::uint32_t FetchWorker::copy_all(const std::vector<Chunk>& chunks, const std::byte* from) {
  std::uint32_t crc = 0;
  std::vector<Piece> pieces;
  const std::size_t batch = std::max<std::size_t>(kBatchBytes / frame_.grid().chunk_bytes, 1);
  for (std::size_t begin = 0; begin < chunks.size(); begin += batch) {
    if (fetch_.stopping_) {
      throw Broken("stopped", "the copy was given up");
    }
    const std::size_t end = std::min(begin + batch, chunks.size());
    pieces.clear();
    for (std::size_t i = begin; i < end; ++i) {
      pieces.push_back({frame_.at(chunks[i]), from + chunks[i].offset, chunks[i].nbytes});
    }
    const auto sums = copy_crc32c(pieces, fetch_.settings_.copy_threads, cpu_level());
    for (std::size_t i = 0; i < sums.size(); ++i) {
      crc = crc32c_join(crc, sums[i], pieces[i].nbytes);
    }
  }
  return crc;
}

}  // namespace hpresil::transfer
