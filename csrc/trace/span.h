// What native code does, under one name for the trace of the job and for a profiler (NVTX).
//
//     const Span span(SpanName::copy, nbytes);
//
// The names are those of hpresil.base.spans.NAMES that begin with "native", and docs/formats.md lists them
// all; a test compares. Use it for operations, not in loops: two looks at the clock and one record, some 100
// ns. Operations on fewer than kLeastSpanBytes bytes are left out, where the number is one of bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace hpresil {

enum class SpanName : std::uint8_t { copy, checksum, sum, squares, interrupt };

inline constexpr std::array<const char*, 5> kSpanNames = {"native copy", "native checksum", "native sum",
                                                          "native squares", "native interrupt"};
inline constexpr std::size_t kLeastSpanBytes = std::size_t{64} << 10;

// Thread rule: made and destroyed in the same thread, last made first destroyed.
class Span {
 public:
  // `value` is the number that belongs to it. Of few bytes there is no span.
  explicit Span(SpanName name, std::int64_t value = 0);
  static Span of_bytes(SpanName name, std::size_t bytes);
  ~Span();
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  Span() = default;

  const char* name_ = nullptr;  // none: nothing is recorded
  std::int64_t value_ = 0;
  std::int64_t begin_ns_ = 0;
};

}  // namespace hpresil
