#include "base/error.h"

#include <string_view>
#include <system_error>

namespace hpresil {
namespace {

std::string place(const std::source_location& where) {
  std::string_view file = where.file_name();
  const auto root = file.rfind("csrc/");
  if (root != std::string_view::npos) {
    file = file.substr(root);
  }
  return " [" + std::string(file) + ":" + std::to_string(where.line()) + "]";
}

}  // namespace

void fail(const std::string& what, std::source_location where) { throw NativeError(what + place(where)); }

void fail_errno(const std::string& what, int error, std::source_location where) {
  const std::string text = std::generic_category().message(error);
  throw NativeError(what + ": " + text + " (errno " + std::to_string(error) + ")" + place(where));
}

}  // namespace hpresil
