// Threads record spans without a lock; a reader finds whole ones, each once, and the log never grows.
#include "trace/span_log.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <thread>
#include <vector>

#include "base/error.h"
#include "memory/mapping.h"
#include "memory/memfd.h"
#include "trace/span.h"

namespace hpresil {
namespace {

constexpr std::size_t kHeader = 4096;
constexpr std::size_t kRecord = 64;

// Two empty traces one behind the other, as the agent lends them.
class Lent {
 public:
  Lent(std::uint64_t first, std::uint64_t second)
      : start_(kHeader + first * kRecord),
        capacity_(second),
        fd_(create_memfd("lent", start_ + kHeader + second * kRecord)),
        mapping_(fd_.get(), start_ + kHeader + second * kRecord, true, true) {
    write_header(0, first);
    write_header(start_, second);
    attach_span_log(fd_.get());
  }
  ~Lent() { detach_span_log(); }
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;

  [[nodiscard]] std::uint64_t written() const { return number_at(start_ + 24); }
  [[nodiscard]] std::uint64_t field(std::uint64_t span, std::size_t offset) const {
    return number_at(start_ + kHeader + span % capacity_ * kRecord + offset);
  }
  [[nodiscard]] std::string name(std::uint64_t span) const {
    const std::byte* at = mapping_.data() + start_ + kHeader + span % capacity_ * kRecord + 48;
    return std::string(reinterpret_cast<const char*>(at), 16).c_str();
  }

 private:
  void write_header(std::size_t at, std::uint64_t capacity) {
    const std::uint32_t format = 1;
    const std::uint32_t record = kRecord;
    std::memcpy(mapping_.data() + at, "hpresilT", 8);
    std::memcpy(mapping_.data() + at + 8, &format, 4);
    std::memcpy(mapping_.data() + at + 12, &record, 4);
    std::memcpy(mapping_.data() + at + 16, &capacity, 8);
  }
  [[nodiscard]] std::uint64_t number_at(std::size_t at) const {
    std::uint64_t number = 0;
    std::memcpy(&number, mapping_.data() + at, sizeof(number));
    return number;
  }

  std::size_t start_;
  std::uint64_t capacity_;
  Fd fd_;
  Mapping mapping_;
};

TEST(SpanLog, ThreadsRecordEverySpanOnce) {
  const Lent lent(8, 4096);
  std::vector<std::thread> threads;
  for (std::int64_t i = 0; i < 4; ++i) {
    threads.emplace_back([i] {
      for (std::int64_t k = 0; k < 1000; ++k) {
        record_span("native copy", 1, 2, i * 1000 + k);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  ASSERT_EQ(lent.written(), 4000U);
  std::set<std::uint64_t> values;
  for (std::uint64_t span = 0; span < 4000; ++span) {
    EXPECT_EQ(lent.field(span, 0), span);
    values.insert(lent.field(span, 24));
  }
  EXPECT_EQ(values.size(), 4000U);
}

TEST(SpanLog, IsBoundedAndHoldsTheNewest) {
  const Lent lent(8, 16);
  for (std::int64_t i = 0; i < 100; ++i) {
    record_span("native sum", i + 1, i + 2, i);
  }
  EXPECT_EQ(lent.written(), 100U);
  for (std::uint64_t span = 84; span < 100; ++span) {
    EXPECT_EQ(lent.field(span, 0), span);
    EXPECT_EQ(lent.field(span, 8), span + 1);
    EXPECT_EQ(lent.field(span, 16), span + 2);
    EXPECT_EQ(lent.field(span, 24), span);
    EXPECT_EQ(lent.name(span), "native sum");
  }
}

TEST(SpanLog, ASpanCoversItsBlockAndFewBytesAreNone) {
  const Lent lent(8, 16);
  {
    const Span outer(SpanName::interrupt);
    const Span inner = Span::of_bytes(SpanName::checksum, kLeastSpanBytes);
    const Span none = Span::of_bytes(SpanName::copy, kLeastSpanBytes - 1);
  }
  ASSERT_EQ(lent.written(), 2U);
  EXPECT_EQ(lent.name(0), "native checksum") << "the inner one ends first";
  EXPECT_EQ(lent.field(0, 24), kLeastSpanBytes);
  EXPECT_EQ(lent.name(1), "native interrupt");
  EXPECT_LE(lent.field(1, 8), lent.field(0, 8));
  EXPECT_GE(lent.field(1, 16), lent.field(0, 16));
}

TEST(SpanLog, AForkedChildRecordsNothing) {
  const Lent lent(8, 16);
  const pid_t child = fork();
  if (child == 0) {
    record_span("native copy", 1, 2, 3);
    _exit(0);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(lent.written(), 0U);
}

TEST(SpanLog, WithoutMemoryNothingHappens) {
  detach_span_log();
  record_span("native copy", 1, 2, 3);
  EXPECT_FALSE(spans_are_recorded());
  const Fd other = create_memfd("other", 8192);
  EXPECT_THROW(attach_span_log(other.get()), NativeError);
}

TEST(SpanLog, EveryNameFitsIntoARecord) {
  for (const char* name : kSpanNames) {
    EXPECT_LE(std::strlen(name), 16U);
  }
}

}  // namespace
}  // namespace hpresil
