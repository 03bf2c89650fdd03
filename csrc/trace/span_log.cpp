#include "trace/span_log.h"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "memory/mapping.h"
#include "memory/memfd.h"

namespace hpresil {
namespace {

constexpr std::array<char, 8> kMagic = {'h', 'p', 'r', 'e', 's', 'i', 'l', 'T'};
constexpr std::uint32_t kFormat = 1;
constexpr std::size_t kHeaderBytes = 4096;
constexpr std::size_t kTracksAt = 256;
constexpr std::size_t kTrackBytes = 32;
constexpr std::uint32_t kTracks = 8;
constexpr std::size_t kNameBytes = 16;
constexpr std::uint8_t kOverlapping = 1;

struct Header {
  std::array<char, 8> magic;
  std::uint32_t format;
  std::uint32_t record_bytes;
  std::uint64_t capacity;
  std::atomic<std::uint64_t> written;
  std::uint64_t pid;
};

struct Record {
  std::atomic<std::uint64_t> number;
  std::atomic<std::uint64_t> begin_ns;
  std::atomic<std::uint64_t> end_ns;
  std::atomic<std::uint64_t> value;
  std::atomic<std::uint64_t> step_and_generation;
  std::atomic<std::uint64_t> slot_track_flags;
  std::array<std::atomic<std::uint64_t>, kNameBytes / 8> name;
};
static_assert(sizeof(Record) == 64);

struct Log {
  Log(Mapping memory, std::size_t begin)
      : mapping(std::move(memory)),
        header(reinterpret_cast<Header*>(mapping.data() + begin)),
        records(reinterpret_cast<Record*>(mapping.data() + begin + kHeaderBytes)),
        names(reinterpret_cast<char*>(mapping.data() + begin + kTracksAt)) {}

  Mapping mapping;
  Header* header;
  Record* records;
  char* names;
  std::atomic<std::uint32_t> tracks{0};
  Log* older = nullptr;
};

std::atomic<Log*> g_log{nullptr};
std::atomic<Log*> g_newest{nullptr};  // never freed: a thread may be writing to an older one

const Header* header_at(const std::byte* at, std::size_t bytes) {
  const auto* header = reinterpret_cast<const Header*>(at);
  const bool sound = bytes > kHeaderBytes && header->magic == kMagic && header->format == kFormat &&
                     header->record_bytes == sizeof(Record) && header->capacity > 0 &&
                     header->capacity <= (bytes - kHeaderBytes) / sizeof(Record);
  return sound ? header : nullptr;
}

// The calling thread's row in the log; those beyond the last share it.
std::uint32_t track_in(Log& log) {
  struct Mine {
    Log* log = nullptr;
    std::uint32_t track = 0;
  };
  thread_local Mine mine;
  if (mine.log != &log) {
    mine = {&log, log.tracks.fetch_add(1)};
    if (mine.track < kTracks) {
      std::array<char, kTrackBytes> name{"native "};
      pthread_getname_np(pthread_self(), name.data() + 7, 16);
      std::memcpy(log.names + mine.track * kTrackBytes, name.data(), name.size());
    }
  }
  return mine.track;
}

std::array<std::uint64_t, 2> packed(const char* name) {
  std::array<std::uint64_t, 2> words{};
  std::memcpy(words.data(), name, std::min(std::strlen(name), kNameBytes));
  return words;
}

}  // namespace

void attach_span_log(int fd) {
  const std::size_t bytes = bytes_of(fd);
  Mapping mapping(fd, bytes, true, false);
  const Header* python = header_at(mapping.data(), bytes);
  expects(python != nullptr, "the descriptor is no memory of a trace");
  const std::size_t begin = kHeaderBytes + python->capacity * sizeof(Record);
  expects(header_at(mapping.data() + begin, bytes - begin) != nullptr,
          "the memory of the trace has no part for native code");
  auto* log = new Log(std::move(mapping), begin);
  log->header->pid = static_cast<std::uint64_t>(getpid());
  static const int once = pthread_atfork(nullptr, nullptr, detach_span_log);
  static_cast<void>(once);
  log->older = g_newest.exchange(log);
  g_log.store(log);
}

void detach_span_log() { g_log.store(nullptr); }

bool spans_are_recorded() { return g_log.load(std::memory_order_relaxed) != nullptr; }

void record_span(const char* name, std::int64_t begin_ns, std::int64_t end_ns, std::int64_t value) noexcept {
  Log* log = g_log.load(std::memory_order_acquire);
  if (log == nullptr) {
    return;
  }
  const std::uint32_t track = track_in(*log);
  const std::uint64_t place = std::min(track, kTracks - 1);
  const std::uint64_t flags = track < kTracks ? 0 : kOverlapping;
  const std::uint64_t number = log->header->written.fetch_add(1, std::memory_order_relaxed);
  Record& record = log->records[number % log->header->capacity];
  const std::array<std::uint64_t, 2> words = packed(name);
  // A record without a beginning is left out by readers, and so is one of another number.
  record.begin_ns.store(0, std::memory_order_relaxed);
  record.end_ns.store(static_cast<std::uint64_t>(end_ns), std::memory_order_release);
  record.value.store(static_cast<std::uint64_t>(value), std::memory_order_release);
  record.step_and_generation.store(0xFFFFFFFFU, std::memory_order_release);  // step -1, generation 0
  record.slot_track_flags.store(0xFFFFFFFFU | place << 32 | flags << 40, std::memory_order_release);
  record.name[0].store(words[0], std::memory_order_release);
  record.name[1].store(words[1], std::memory_order_release);
  record.number.store(number, std::memory_order_release);
  record.begin_ns.store(static_cast<std::uint64_t>(begin_ns), std::memory_order_release);
}

}  // namespace hpresil
