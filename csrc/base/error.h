// Errors of the native core.
//
// One class mirrors hpresil.base.errors.NativeError; the bindings translate it. A message says what
// was attempted, why it failed and where in the source: "memfd_create: Too many open files (errno 24)
// [csrc/memory/memfd.cpp:20]".
#pragma once

#include <source_location>
#include <stdexcept>
#include <string>

namespace hpresil {

class NativeError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

[[noreturn]] void fail(const std::string& what, std::source_location where = std::source_location::current());

// Adds the text of `error`, a value of errno.
[[noreturn]] void fail_errno(const std::string& what, int error,
                             std::source_location where = std::source_location::current());

inline void expects(bool holds, const char* what,
                    std::source_location where = std::source_location::current()) {
  if (!holds) {
    fail(what, where);
  }
}

}  // namespace hpresil
