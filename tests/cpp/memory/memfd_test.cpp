// Memory files: their size, their seals, and descriptors that close themselves.
#include "memory/memfd.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "base/error.h"

namespace hpresil {
namespace {

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) >= 0; }

TEST(Fd, ClosesItselfOnceAndNotAfterARelease) {
  int number = -1;
  {
    const Fd file = create_memfd("test", 4096);
    number = file.get();
    EXPECT_TRUE(is_open(number));
  }
  EXPECT_FALSE(is_open(number));
  Fd kept = create_memfd("test", 4096);
  number = kept.release();
  kept.close();
  EXPECT_TRUE(is_open(number));
  ::close(number);
}

TEST(Fd, MovesWithoutClosing) {
  Fd first = create_memfd("test", 4096);
  const int number = first.get();
  Fd second = std::move(first);
  EXPECT_EQ(second.get(), number);
  second = create_memfd("other", 4096);
  EXPECT_FALSE(is_open(number)) << "what was held before an assignment is closed";
}

TEST(Memfd, HasItsSizeAndIsClosedOnExec) {
  const Fd file = create_memfd("test", 12345);
  EXPECT_EQ(bytes_of(file.get()), 12345U);
  EXPECT_NE(::fcntl(file.get(), F_GETFD) & FD_CLOEXEC, 0);
  const Fd again = duplicate(file.get());
  EXPECT_NE(again.get(), file.get());
  EXPECT_EQ(bytes_of(again.get()), 12345U);
}

TEST(Memfd, KeepsTheSizeItWasSealedWith) {
  const Fd file = create_memfd("test", 4096);
  add_seals(file.get(), F_SEAL_SHRINK | F_SEAL_GROW);
  EXPECT_EQ(seals_of(file.get()), F_SEAL_SHRINK | F_SEAL_GROW);
  EXPECT_NE(::ftruncate(file.get(), 8192), 0);
  EXPECT_NE(::ftruncate(file.get(), 0), 0);
}

TEST(Memfd, NamesTheCallThatFailed) {
  try {
    (void)bytes_of(-1);
    FAIL() << "a descriptor that is none was accepted";
  } catch (const NativeError& error) {
    EXPECT_NE(std::string(error.what()).find("errno 9"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace hpresil
