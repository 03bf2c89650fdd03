// Spans of native code in memory that the agent lends to the process, in the form of a trace
// (docs/formats.md).
//
// That memory holds two traces: the first is written by Python (hpresil.base.spans), the second by native
// code, which cannot take part in Python's lock. Any number of threads write here without one: each takes a
// number and fills the place of that number, the number last, so that a reader leaves out what is not
// complete. The log never grows; the newest spans overwrite the oldest. The agent copies both into
// RUN_DIR/trace.
//
// Thread safety: all of it. A forked child of the process records nothing. Without lent memory nothing
// happens.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hpresil {

// Record from here on into the second trace of the memory behind `fd`, which may be closed afterwards. The
// memory stays mapped for good. Throws for what is no such memory, or holds one trace only.
void attach_span_log(int fd);

// Record nothing more.
void detach_span_log();

bool spans_are_recorded();

// Appends one span of the calling thread. `name` has at most 16 characters; times are monotonic nanoseconds.
void record_span(const char* name, std::int64_t begin_ns, std::int64_t end_ns, std::int64_t value) noexcept;

}  // namespace hpresil
