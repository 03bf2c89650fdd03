// Which function an address lies in, from the symbol tables of an ELF file (64 bits, little-endian).
//
// The file is read with pread, never mapped: one that is replaced or cut off meanwhile gives wrong or no
// names, not a crash. Whatever the file holds, no more than its tables are read, in pieces.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace hpresil {

struct FunctionAt {
  std::uint64_t file_offset;  // given: of the instruction, from the start of the file
  std::string name;           // found: demangled; stays empty if no table names it
  std::uint64_t distance;     // found: bytes from the beginning of the function
};

// Looks all of them up in one pass. A file that is no such ELF file names nothing. Thread safe.
void name_functions(int fd, std::span<FunctionAt> wanted);

}  // namespace hpresil
