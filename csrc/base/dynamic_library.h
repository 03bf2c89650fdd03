// A shared library that is opened at run time, and its functions, each as its C type.
//
// Opened, not linked: the module then imports on machines that do not have it, and only what needs the
// library says that it is missing.
#pragma once

#include <functional>
#include <source_location>
#include <string>
#include <utility>
#include <vector>

namespace hpresil {

// What an error calls a library, and what it says is to be done.
struct LibraryTerms {
  std::string what;        // "NCCL"
  std::string if_absent;   // when it cannot be opened
  std::string if_lacking;  // when a function is not in it: it is too old
};

// Never closed, as other users of the library may keep state in it: what was found stays valid, copies are
// equal. Thread safe.
class DynamicLibrary {
 public:
  using Lookup = std::function<void*(const char*)>;

  // Opens the first of `names` that can be, each where the loader finds it; the instance that this process
  // has loaded already if there is one. Throws NativeError with the loader's words for every name.
  static DynamicLibrary open(const std::vector<std::string>& names, LibraryTerms terms,
                             std::source_location where = std::source_location::current());

  // Any source of functions; `lookup` returns null for what is not there.
  DynamicLibrary(Lookup lookup, std::string origin, LibraryTerms terms)
      : lookup_(std::move(lookup)), origin_(std::move(origin)), terms_(std::move(terms)) {}

  // The name it was opened by, and who had loaded it.
  const std::string& origin() const { return origin_; }

  // Sets `out` to the function and returns true; leaves `out` as it is if there is none. `out` says which C
  // type the function has, which nobody checks.
  template <typename Result, typename... Arguments>
  bool find(const char* symbol, Result (*&out)(Arguments...)) const {
    void* found = lookup_(symbol);
    if (found != nullptr) {
      out = reinterpret_cast<Result (*)(Arguments...)>(found);
    }
    return found != nullptr;
  }

  template <typename Result, typename... Arguments>
  bool find(const char* symbol, std::function<Result(Arguments...)>& out) const {
    Result (*found)(Arguments...) = nullptr;
    if (find(symbol, found)) {
      out = found;
    }
    return found != nullptr;
  }

  // As `find`, but throws NativeError if there is none: it names the library and the function.
  template <typename Function>
  void need(const char* symbol, Function& out,
            std::source_location where = std::source_location::current()) const {
    if (!find(symbol, out)) {
      lacks(symbol, where);
    }
  }

 private:
  [[noreturn]] void lacks(const char* symbol, std::source_location where) const;

  Lookup lookup_;
  std::string origin_;
  LibraryTerms terms_;
};

}  // namespace hpresil
