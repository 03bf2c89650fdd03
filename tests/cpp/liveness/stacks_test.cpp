// A worker's threads say where they stand and never go on; who asks waits no longer than it wants to.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/thread.h"
#include "liveness/stack_reader.h"
#include "liveness/stack_signals.h"

namespace hpresil {

namespace {

// The thread sanitizer makes a thread's place for signals in its first blocking call and loses one that comes
// meanwhile; so that call is made before anybody is told that the thread can be asked.
void say(int said) {
  usleep(1);
  static_cast<void>(!write(said, "x", 1));
}

}  // namespace

// With a name that the dynamic symbols have. Says that it stands before it does.
__attribute__((noinline, visibility("default"))) void stand_still_in_native_code(int said) {
  say(said);
  for (;;) {
    pause();
    asm volatile("" ::: "memory");
  }
}

namespace {

#if defined(__SANITIZE_THREAD__)
// It holds a signal back while another one is handled, so the second question is never answered.
constexpr bool kNested = false;
constexpr std::int64_t kPatienceNs = 1'000'000'000;
#else
constexpr bool kNested = true;
constexpr std::int64_t kPatienceNs = 20'000'000'000;
#endif
constexpr std::int64_t kShortNs = 100'000'000;

// A child that lives `life` with the page's handlers and stands still; there once `saying` threads have said
// so into the file that `life` is given.
class Child {
 public:
  Child(const std::shared_ptr<Page>& page, const std::function<void(int)>& life, int saying = 1) {
    std::array<int, 2> said{};
    EXPECT_EQ(pipe(said.data()), 0);
    pid_ = fork();
    if (pid_ == 0) {
      auto mine = Page::attach(page->fd());
      install_stack_handlers(mine);
      life(said[1]);
      stand_still_in_native_code(said[1]);
    }
    char byte = 0;
    for (int i = 0; i < saying; ++i) {
      EXPECT_EQ(read(said[0], &byte, 1), 1);
    }
    close(said[0]);
    close(said[1]);
  }
  ~Child() {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = 0;
};

std::size_t answers(const StackReport& report) {
  std::size_t count = 0;
  for (const ThreadReport& thread : report.threads) {
    count += thread.frames.empty() ? 0 : 1;
  }
  return count;
}

TEST(Stacks, EveryThreadSaysWhereItStands) {
  const auto page = Page::create();
  const auto four_threads = [](int said) {
    for (int i = 0; i < 3; ++i) {
      std::thread([said] { stand_still_in_native_code(said); }).detach();
    }
  };
  const Child child(page, four_threads, 4);
  const std::size_t asked = ask_for_stacks(*page, child.pid());
  const StackReport report = wait_for_stacks(*page, child.pid(), kPatienceNs);
  EXPECT_GE(asked, 4U);
  EXPECT_GE(answers(report), 4U);
  EXPECT_EQ(report.told, kNested) << "whether the handler of the second signal ran";
  const std::string text = describe(report);
  std::size_t named = 0;
  for (std::size_t at = text.find("stand_still_in_native_code"); at != std::string::npos;
       at = text.find("stand_still_in_native_code", at + 1)) {
    ++named;
  }
  EXPECT_GE(named, 4U) << text;
}

TEST(Stacks, WhoWasAskedNeverGoesOn) {
  const auto page = Page::create();
  auto* beats = &page->layout().interpreter_ns;
  const auto beating = [&page](int said) {
    std::thread([page, said] {
      say(said);
      for (;;) {
        page->layout().interpreter_ns.fetch_add(1);
        usleep(1000);
      }
    }).detach();
  };
  const Child child(page, beating, 2);
  (void)ask_for_stacks(*page, child.pid());
  (void)wait_for_stacks(*page, child.pid(), kPatienceNs);
  const std::int64_t before = beats->load();
  usleep(50'000);
  EXPECT_EQ(beats->load(), before);
}

TEST(Stacks, AStoppedProcessIsNotWaitedForLongerThanTheDeadline) {
  const auto page = Page::create();
  const Child child(page, [](int /*said*/) {});
  kill(child.pid(), SIGSTOP);
  int status = 0;
  ASSERT_EQ(waitpid(child.pid(), &status, WUNTRACED), child.pid());
  const std::int64_t begin = monotonic_ns();
  (void)ask_for_stacks(*page, child.pid());
  const StackReport report = wait_for_stacks(*page, child.pid(), kShortNs);
  EXPECT_LT(monotonic_ns() - begin, 50 * kShortNs);
  EXPECT_EQ(answers(report), 0U);
  EXPECT_FALSE(report.told);
  EXPECT_NE(describe(report).find("it is stopped"), std::string::npos);
}

TEST(Stacks, NativeThreadsOfTheCoreAreNotWaitedFor) {
  const auto page = Page::create();
  const auto blocked = [](int said) {
    start_thread("blocked", [said] { stand_still_in_native_code(said); }).detach();
  };
  const Child child(page, blocked, 2);
  (void)ask_for_stacks(*page, child.pid());
  const StackReport report = wait_for_stacks(*page, child.pid(), kPatienceNs);
  EXPECT_GE(answers(report), 1U);
  EXPECT_NE(describe(report).find("it blocks the signal"), std::string::npos);
}

TEST(Stacks, SignalsWithoutAQuestionHaveNoEffect) {
  const auto page = Page::create();
  install_stack_handlers(page);
  raise(stack_signal());
  raise(text_signal());
  EXPECT_EQ(page->stacks().claimed.load(), 0U);
  EXPECT_EQ(page->stacks().told.load(), 0U);
}

TEST(Stacks, AProcessThatIsGoneSaysNothing) {
  const auto page = Page::create();
  pid_t gone = 0;
  {
    const Child child(page, [](int /*said*/) {});
    gone = child.pid();
  }
  EXPECT_EQ(ask_for_stacks(*page, gone), 0U);
  EXPECT_TRUE(wait_for_stacks(*page, gone, kShortNs).threads.empty());
}

}  // namespace
}  // namespace hpresil
