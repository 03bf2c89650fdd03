#include "base/elf_symbols.h"

#include <cxxabi.h>
#include <elf.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <vector>

namespace hpresil {
namespace {

constexpr std::size_t kMaxHeaders = 4096;
constexpr std::size_t kMaxSymbols = std::size_t{1} << 23;
constexpr std::size_t kSymbolsAtOnce = 4096;
constexpr std::size_t kMaxNameBytes = 1024;
constexpr std::size_t kMaxRepeats = 24;
constexpr std::size_t kRepeatsOfAPack = kMaxRepeats / 2;

template <typename T>
std::vector<T> read_array(int fd, std::uint64_t offset, std::size_t count) {
  std::vector<T> found(count);
  const ssize_t got = ::pread(fd, found.data(), count * sizeof(T), static_cast<off_t>(offset));
  found.resize(got > 0 ? static_cast<std::size_t>(got) / sizeof(T) : 0);
  return found;
}

struct Wanted {
  std::uint64_t address;
  FunctionAt* function;
};

// Where the file's bytes lie in the address space that its symbols speak of.
std::vector<Wanted> addresses(int fd, const Elf64_Ehdr& head, std::span<FunctionAt> functions) {
  std::vector<Wanted> found;
  const auto segments =
      read_array<Elf64_Phdr>(fd, head.e_phoff, std::min<std::size_t>(head.e_phnum, kMaxHeaders));
  for (FunctionAt& function : functions) {
    for (const Elf64_Phdr& segment : segments) {
      const std::uint64_t into = function.file_offset - segment.p_offset;
      if (segment.p_type == PT_LOAD && function.file_offset >= segment.p_offset && into < segment.p_filesz) {
        found.push_back({segment.p_vaddr + into, &function});
        break;
      }
    }
  }
  std::sort(found.begin(), found.end(),
            [](const Wanted& a, const Wanted& b) { return a.address < b.address; });
  return found;
}

// How often a mangled name repeats an earlier part of itself (S_, S0_, T_, …) or a pack (Dp). Each repetition
// may hold others: three of them triple the text, a pack multiplies it by its length.
std::size_t repeats(const std::string& mangled) {
  std::size_t found = 0;
  for (std::size_t at = 0; at + 1 < mangled.size(); ++at) {
    if (mangled[at] == 'S' || mangled[at] == 'T') {
      const std::size_t end = mangled.find_first_not_of("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", at + 1);
      found += end != std::string::npos && mangled[end] == '_' ? 1 : 0;
    } else if (mangled[at] == 'D' && mangled[at + 1] == 'p') {
      found += kRepeatsOfAPack;
    }
  }
  return found;
}

// A name whose text could fill the memory stays as it is in the file.
std::string name_at(int fd, std::uint64_t offset) {
  std::vector<char> bytes = read_array<char>(fd, offset, kMaxNameBytes);
  bytes.push_back('\0');
  std::string mangled(bytes.data());
  if (repeats(mangled) > kMaxRepeats) {
    return mangled;
  }
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> plain(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 && plain ? std::string(plain.get()) : mangled;
}

bool is_function(const Elf64_Sym& symbol) {
  const unsigned type = ELF64_ST_TYPE(symbol.st_info);
  return (type == STT_FUNC || type == STT_GNU_IFUNC) && symbol.st_shndx != SHN_UNDEF && symbol.st_size > 0;
}

void look_through(int fd, const Elf64_Shdr& table, const Elf64_Shdr& names,
                  const std::vector<Wanted>& wanted) {
  const std::size_t count = std::min<std::size_t>(table.sh_size / sizeof(Elf64_Sym), kMaxSymbols);
  for (std::size_t first = 0; first < count; first += kSymbolsAtOnce) {
    const auto symbols = read_array<Elf64_Sym>(fd, table.sh_offset + first * sizeof(Elf64_Sym),
                                               std::min(kSymbolsAtOnce, count - first));
    if (symbols.empty()) {
      return;  // the file is shorter than it says
    }
    for (const Elf64_Sym& symbol : symbols) {
      if (!is_function(symbol)) {
        continue;
      }
      auto found =
          std::lower_bound(wanted.begin(), wanted.end(), symbol.st_value,
                           [](const Wanted& one, std::uint64_t address) { return one.address < address; });
      for (; found != wanted.end() && found->address - symbol.st_value < symbol.st_size; ++found) {
        FunctionAt& function = *found->function;
        if (!function.name.empty()) {
          continue;
        }
        function.name = name_at(fd, names.sh_offset + symbol.st_name);
        if (!function.name.empty()) {  // a symbol may have none
          function.distance = found->address - symbol.st_value;
        }
      }
    }
  }
}

}  // namespace

void name_functions(int fd, std::span<FunctionAt> wanted) {
  const auto heads = read_array<Elf64_Ehdr>(fd, 0, 1);
  if (heads.empty() || std::memcmp(heads[0].e_ident, ELFMAG, SELFMAG) != 0) {
    return;
  }
  const Elf64_Ehdr& head = heads[0];
  if (head.e_ident[EI_CLASS] != ELFCLASS64 || head.e_ident[EI_DATA] != ELFDATA2LSB ||
      head.e_phentsize != sizeof(Elf64_Phdr) || head.e_shentsize != sizeof(Elf64_Shdr)) {
    return;
  }
  const std::vector<Wanted> sorted = addresses(fd, head, wanted);
  const auto sections =
      read_array<Elf64_Shdr>(fd, head.e_shoff, std::min<std::size_t>(head.e_shnum, kMaxHeaders));
  for (const Elf64_Shdr& section : sections) {
    const bool symbols = section.sh_type == SHT_SYMTAB || section.sh_type == SHT_DYNSYM;
    if (symbols && section.sh_link < sections.size()) {
      look_through(fd, section, sections[section.sh_link], sorted);
    }
  }
}

}  // namespace hpresil
