// Libraries that are there, that are not, and that lack something.
#include "base/dynamic_library.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"

namespace hpresil {
namespace {

const LibraryTerms kTerms{"the library of the tests", "build it", "build a newer one"};

// What a call says that must fail.
std::string message(const std::function<void()>& call) {
  try {
    call();
  } catch (const NativeError& error) {
    return error.what();
  }
  ADD_FAILURE() << "it did not fail";
  return "";
}

void expect_in_order(const std::string& text, const std::vector<std::string>& parts) {
  std::size_t from = 0;
  for (const std::string& part : parts) {
    const std::size_t at = text.find(part, from);
    ASSERT_NE(at, std::string::npos) << "'" << part << "' is not in its place in: " << text;
    from = at + part.size();
  }
}

TEST(DynamicLibrary, ItsFunctionsAreCalledByTheirTypes) {
  const DynamicLibrary library = DynamicLibrary::open({OPENED_BY_TESTS}, kTerms);
  int (*plain)(int) = nullptr;
  std::function<int(int)> held;
  library.need("a_function_of_the_library", plain);
  EXPECT_TRUE(library.find("a_function_of_the_library", held));
  EXPECT_EQ(plain(14), 42);
  EXPECT_EQ(held(14), 42);
}

TEST(DynamicLibrary, WhoLoadedItIsTold) {
  // A file of its own, as other tests of this program have loaded the library.
  std::string folder = testing::TempDir() + "hpresil-library-XXXXXX";
  ASSERT_NE(mkdtemp(folder.data()), nullptr);
  const std::string copy = folder + "/libcopy.so";
  std::filesystem::copy_file(OPENED_BY_TESTS, copy);
  EXPECT_EQ(DynamicLibrary::open({copy}, kTerms).origin(), copy + ", loaded by hpresil");
  EXPECT_EQ(DynamicLibrary::open({copy}, kTerms).origin(), copy + ", loaded before");
  std::filesystem::remove_all(folder);
}

TEST(DynamicLibrary, TheFirstNameThatCanBeOpenedIsTaken) {
  const DynamicLibrary library =
      DynamicLibrary::open({"libnot-there.so.7", OPENED_BY_TESTS, "libnot-there-either.so"}, kTerms);
  EXPECT_EQ(library.origin().rfind(OPENED_BY_TESTS, 0), 0U) << library.origin();
}

TEST(DynamicLibrary, WhenNoneCanBeOpenedTheErrorSaysWhatWasTriedAndWhatToDo) {
  const std::string text =
      message([] { DynamicLibrary::open({"libnot-there.so.7", "libnot-there-either.so"}, kTerms); });
  expect_in_order(text, {"the library of the tests is not here", "libnot-there.so.7: cannot open",
                         "libnot-there-either.so: cannot open", "build it", "dynamic_library_test.cpp"});
}

TEST(DynamicLibrary, AFunctionThatIsMissingIsNamedWithItsLibrary) {
  const DynamicLibrary library = DynamicLibrary::open({OPENED_BY_TESTS}, kTerms);
  int (*function)(int) = nullptr;
  const std::string text = message([&] { library.need("a_later_function", function); });
  expect_in_order(text, {"the library of the tests", OPENED_BY_TESTS, "has no function a_later_function",
                         "build a newer one", "dynamic_library_test.cpp"});
  EXPECT_EQ(function, nullptr);
}

TEST(DynamicLibrary, WhatIsNotFoundLeavesWhatWasThere) {
  const DynamicLibrary library([](const char*) -> void* { return nullptr; }, "a table", kTerms);
  std::function<int()> held = [] { return 5; };
  EXPECT_FALSE(library.find("anything", held));
  EXPECT_EQ(held(), 5);
  EXPECT_EQ(library.origin(), "a table");
}

}  // namespace
}  // namespace hpresil
