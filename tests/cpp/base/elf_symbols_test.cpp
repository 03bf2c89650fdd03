// Functions are found by their place in a file, and no file does harm.
#include "base/elf_symbols.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <random>
#include <sstream>
#include <vector>

#include "memory/memfd.h"

namespace hpresil {

__attribute__((noinline, used)) int a_function_to_be_found(int x) { return x * 3; }

namespace {

// The offset in this program's file at which an address of its code lies.
std::uint64_t file_offset(const void* address) {
  const auto wanted = reinterpret_cast<std::uint64_t>(address);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    std::uint64_t begin = 0;
    std::uint64_t end = 0;
    std::uint64_t offset = 0;
    std::array<char, 5> rights{};
    if (std::sscanf(line.c_str(), "%lx-%lx %4s %lx", &begin, &end, rights.data(), &offset) == 4 &&
        begin <= wanted && wanted < end) {
      return wanted - begin + offset;
    }
  }
  return 0;
}

Fd program() { return Fd(open("/proc/self/exe", O_RDONLY | O_CLOEXEC)); }

TEST(ElfSymbols, NamesAFunctionAndHowFarInTheAddressIs) {
  const std::uint64_t at = file_offset(reinterpret_cast<const void*>(&a_function_to_be_found));
  ASSERT_NE(at, 0U);
  std::array<FunctionAt, 2> wanted = {FunctionAt{at + 1, "", 0}, FunctionAt{at, "", 0}};
  name_functions(program().get(), wanted);
  EXPECT_EQ(wanted[0].name, "hpresil::a_function_to_be_found(int)");
  EXPECT_EQ(wanted[0].distance, 1U);
  EXPECT_EQ(wanted[1].distance, 0U);
}

TEST(ElfSymbols, WhatIsInNoFunctionHasNoName) {
  std::array<FunctionAt, 2> wanted = {FunctionAt{0, "", 0}, FunctionAt{std::uint64_t{1} << 60, "", 0}};
  name_functions(program().get(), wanted);
  EXPECT_TRUE(wanted[0].name.empty());
  EXPECT_TRUE(wanted[1].name.empty());
}

TEST(ElfSymbols, DamagedFilesDoNoHarm) {
  const Fd original = program();
  std::vector<char> bytes(1 << 16);
  ASSERT_GT(pread(original.get(), bytes.data(), bytes.size(), 0), 4096);
  std::mt19937 random(7);
  for (int round = 0; round < 200; ++round) {
    std::vector<char> damaged = bytes;
    for (int i = 0; i < 20; ++i) {
      damaged[random() % (round % 2 == 0 ? 256 : damaged.size())] = static_cast<char>(random());
    }
    const Fd file = create_memfd("damaged", damaged.size());
    ASSERT_EQ(pwrite(file.get(), damaged.data(), damaged.size(), 0), static_cast<ssize_t>(damaged.size()));
    std::array<FunctionAt, 1> wanted = {FunctionAt{5000, "", 0}};
    name_functions(file.get(), wanted);
  }
}

}  // namespace
}  // namespace hpresil
