// The liveness page: no reader sees half a stamp, and who waits for a generation is woken.
#include "liveness/page.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "base/error.h"

namespace hpresil {
namespace {

TEST(Page, ReadersNeverSeeHalfAStamp) {
  const auto page = Page::create();
  std::atomic<bool> done = false;
  std::thread writer([&] {
    for (std::int64_t i = 1; i <= 20000; ++i) {
      page->stamp(i % 5, i, 2 * i);
    }
    done = true;
  });
  std::uint64_t last = 0;
  while (!done) {
    const PageState state = page->read();
    EXPECT_EQ(state.slot, 2 * state.step);
    EXPECT_EQ(state.phase, state.stamps == 0 ? 0 : state.step % 5);
    EXPECT_GE(state.stamps, last);
    last = state.stamps;
  }
  writer.join();
  EXPECT_EQ(page->read().step, 20000);
}

TEST(Page, WakesWhoWaitsForAGeneration) {
  const auto page = Page::create();
  const auto other = Page::attach(page->fd());
  std::uint32_t seen = 0;
  std::thread waiting([&] { seen = other->wait_generation(2, std::int64_t{60} * 1'000'000'000); });
  page->set_generation(1);
  page->set_generation(2);
  page->set_generation(3);
  page->set_generation(2);
  waiting.join();
  EXPECT_EQ(seen, 3U);
  EXPECT_EQ(page->generation(), 3U) << "a lower one has no effect";
  EXPECT_EQ(page->wait_generation(3, 1'000'000), 3U) << "a wait has an end";
}

TEST(Page, BeatsOfItsProcessOnly) {
  const auto page = Page::create();
  EXPECT_EQ(page->read().native_ns, 0);
  EXPECT_EQ(page->read().interpreter_ns, 0);
  page->beat();
  const std::int64_t native = page->read().native_ns;
  EXPECT_GT(native, 0);
  EXPECT_EQ(page->read().interpreter_ns, 0);
  const pid_t child = fork();
  if (child == 0) {
    page->beat();
    page->interpreter_beat();
    _exit(0);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(page->read().native_ns, native);
  EXPECT_EQ(page->read().interpreter_ns, 0);
}

TEST(Page, IsNotAttachedToWhatIsNone) {
  const Fd file = create_memfd("none", kPageBytes);
  EXPECT_THROW((void)Page::attach(file.get()), NativeError);
}

}  // namespace
}  // namespace hpresil
