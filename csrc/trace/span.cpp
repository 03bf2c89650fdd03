#include "trace/span.h"

#include "base/clock.h"
#include "device/trace_range.h"
#include "trace/span_log.h"

namespace hpresil {

Span::Span(SpanName name, std::int64_t value)
    : name_(kSpanNames[static_cast<std::size_t>(name)]), value_(value) {
  push_trace_range(name_);
  begin_ns_ = spans_are_recorded() ? monotonic_ns() : 0;
}

Span Span::of_bytes(SpanName name, std::size_t bytes) {
  return bytes < kLeastSpanBytes ? Span() : Span(name, static_cast<std::int64_t>(bytes));
}

Span::~Span() {
  if (name_ == nullptr) {
    return;
  }
  pop_trace_range();
  if (begin_ns_ != 0) {
    record_span(name_, begin_ns_, monotonic_ns(), value_);
  }
}

}  // namespace hpresil
