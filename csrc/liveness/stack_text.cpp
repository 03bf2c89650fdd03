#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "base/elf_symbols.h"
#include "liveness/stack_reader.h"

namespace hpresil {
namespace {

// The signal handler and the kernel's way into it, which every stack begins with.
constexpr std::size_t kOwnFrames = 2;
constexpr std::size_t kMaxNameBytes = 160;

struct Mapped {
  std::uint64_t begin;
  std::uint64_t end;
  std::uint64_t offset;
  std::string path;
};

// Lines like "7f00-7f10 r-xp 00001000 08:01 42      /usr/lib/libc.so.6".
std::vector<Mapped> executable(const std::string& mappings) {
  std::vector<Mapped> found;
  for (std::size_t at = 0; at < mappings.size();) {
    const std::size_t end = std::min(mappings.find('\n', at), mappings.size());
    const std::string line = mappings.substr(at, end - at);
    at = end + 1;
    Mapped one{};
    std::array<char, 5> rights{};
    int path = 0;
    const int fields = std::sscanf(line.c_str(), "%lx-%lx %4s %lx %*s %*s %n", &one.begin, &one.end,
                                   rights.data(), &one.offset, &path);
    if (fields == 4 && rights[2] == 'x' && path > 0 && static_cast<std::size_t>(path) <= line.size()) {
      one.path = line.substr(static_cast<std::size_t>(path));
      found.push_back(std::move(one));
    }
  }
  return found;
}

const Mapped* mapping_of(const std::vector<Mapped>& mappings, std::uint64_t address) {
  for (const Mapped& one : mappings) {
    if (one.begin <= address && address < one.end) {
      return &one;
    }
  }
  return nullptr;
}

std::string hex(std::uint64_t number) {
  std::array<char, 24> text{};
  std::snprintf(text.data(), text.size(), "0x%lx", number);
  return text.data();
}

// For every return address the instruction before it: the call.
class Names {
 public:
  Names(const StackReport& report) : mappings_(executable(report.mappings)) {
    std::map<std::string, std::vector<FunctionAt>> by_file;
    for (const ThreadReport& thread : report.threads) {
      for (const std::uint64_t frame : thread.frames) {
        const Mapped* mapped = mapping_of(mappings_, frame - 1);
        if (mapped != nullptr && mapped->path.starts_with('/')) {
          by_file[mapped->path].push_back({frame - 1 - mapped->begin + mapped->offset, "", 0});
        }
      }
    }
    for (auto& [path, functions] : by_file) {
      const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
      if (file.get() >= 0) {
        name_functions(file.get(), functions);
      }
      for (const FunctionAt& one : functions) {
        found_[{path, one.file_offset}] = one;
      }
    }
  }

  [[nodiscard]] std::string of(std::uint64_t frame) const {
    const Mapped* mapped = mapping_of(mappings_, frame - 1);
    if (mapped == nullptr) {
      return hex(frame);
    }
    const std::uint64_t offset = frame - 1 - mapped->begin + mapped->offset;
    const std::string module = mapped->path.substr(mapped->path.rfind('/') + 1);
    const auto named = found_.find({mapped->path, offset});
    if (named == found_.end() || named->second.name.empty()) {
      return (module.empty() ? "code without a file" : module) + "+" + hex(offset + 1);
    }
    const std::string& name = named->second.name;
    const std::string shown = name.size() > kMaxNameBytes ? name.substr(0, kMaxNameBytes) + "…" : name;
    return shown + "+" + hex(named->second.distance + 1) + " (" + module + ")";
  }

 private:
  std::vector<Mapped> mappings_;
  std::map<std::pair<std::string, std::uint64_t>, FunctionAt> found_;
};

std::string silence(const ThreadReport& thread) {
  if (thread.state == 'D') {
    return "no answer: it is in an uninterruptible sleep";
  }
  if (thread.state == 'T' || thread.state == 't') {
    return "no answer: it is stopped";
  }
  return thread.blocks ? "not asked: it blocks the signal" : "no answer in time";
}

}  // namespace

std::string describe(const StackReport& report) {
  const Names names(report);
  std::string text;
  for (const ThreadReport& thread : report.threads) {
    text += "Thread " + std::to_string(thread.thread) + " (" + thread.name + ")\n";
    if (thread.frames.empty()) {
      text += "  " + silence(thread) + "; state " + thread.state;
      text += thread.where.empty() ? "\n" : ", in the kernel's " + thread.where + "\n";
    }
    for (std::size_t i = kOwnFrames; i < thread.frames.size(); ++i) {
      text += "  #" + std::to_string(i - kOwnFrames) + " " + names.of(thread.frames[i]) + "\n";
    }
  }
  return text;
}

}  // namespace hpresil
