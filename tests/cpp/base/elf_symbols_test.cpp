// Functions are found by their place in a file, and no file does harm.
#include "base/elf_symbols.h"

#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cstring>
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

// A library of one function, whose 16 bytes are at 0x200 of the file.
Fd library(const std::string& name) {
  struct {
    Elf64_Ehdr head;
    Elf64_Phdr segment;
    std::array<Elf64_Shdr, 2> sections;
    std::array<Elf64_Sym, 1> symbols;
  } file{};
  std::memcpy(file.head.e_ident, ELFMAG, SELFMAG);
  file.head.e_ident[EI_CLASS] = ELFCLASS64;
  file.head.e_ident[EI_DATA] = ELFDATA2LSB;
  file.head.e_phentsize = sizeof(Elf64_Phdr);
  file.head.e_shentsize = sizeof(Elf64_Shdr);
  file.head.e_phnum = 1;
  file.head.e_shnum = 2;
  file.head.e_phoff = sizeof(Elf64_Ehdr);
  file.head.e_shoff = file.head.e_phoff + sizeof(Elf64_Phdr);
  file.segment = {.p_type = PT_LOAD,
                  .p_flags = PF_X,
                  .p_offset = 0,
                  .p_vaddr = 0,
                  .p_paddr = 0,
                  .p_filesz = 4096,
                  .p_memsz = 4096,
                  .p_align = 4096};
  file.sections[0].sh_type = SHT_SYMTAB;
  file.sections[0].sh_offset = file.head.e_shoff + sizeof(file.sections);
  file.sections[0].sh_size = sizeof(Elf64_Sym);
  file.sections[0].sh_link = 1;
  file.sections[1].sh_type = SHT_STRTAB;
  file.sections[1].sh_offset = sizeof(file);
  file.symbols[0] = {.st_name = 0,
                     .st_info = ELF64_ST_INFO(STB_GLOBAL, STT_FUNC),
                     .st_other = 0,
                     .st_shndx = 1,
                     .st_value = 0x200,
                     .st_size = 16};
  Fd made = create_memfd("library", sizeof(file) + name.size() + 1);
  EXPECT_EQ(pwrite(made.get(), &file, sizeof(file), 0), static_cast<ssize_t>(sizeof(file)));
  EXPECT_EQ(pwrite(made.get(), name.data(), name.size(), sizeof(file)), static_cast<ssize_t>(name.size()));
  return made;
}

std::string named(const std::string& mangled) {
  std::array<FunctionAt, 1> wanted = {FunctionAt{0x204, "", 0}};
  name_functions(library(mangled).get(), wanted);
  EXPECT_EQ(wanted[0].distance, wanted[0].name.empty() ? 0U : 4U);
  return wanted[0].name;
}

TEST(ElfSymbols, ShowsNamesAsTheyAreWritten) {
  EXPECT_EQ(named("main"), "main");
  EXPECT_EQ(named("_ZN7hpresil4workEi"), "hpresil::work(int)");
  EXPECT_EQ(named("_Z1f4pairIiiES_IS0_S0_E"), "f(pair<int, int>, pair<pair<int, int>, pair<int, int> >)");
  EXPECT_EQ(named(""), "");
}

TEST(ElfSymbols, ANameThatWouldFillTheMemoryStaysAsItIs) {
  std::string doubled = "_Z1f4pairIiiE";  // each pair is of two of those before: 2^36 in the end
  for (const char place : std::string("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")) {
    doubled += std::string("S_IS") + place + "_S" + place + "_E";
  }
  EXPECT_EQ(named(doubled), doubled);
  std::string packs = "_Z1fIJ" + std::string(500, 'i') + "EEv";  // each multiplies by 500
  for (int i = 0; i < 8; ++i) {
    packs += "DpPF";
  }
  packs += "T_" + std::string(8, 'E');
  EXPECT_EQ(named(packs), packs);
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
