// Where a worker leaves its stacks when its agent asks for them: behind the liveness page, in the same file.
//
//   offset   4096  asked: set by the agent before it sends the first signal
//   offset   4100  claimed: how many threads have taken a place
//   offset   4104  told: 1 once Python's stacks are written
//   offset   8192  128 places of 1024 bytes: ready (number of frames + 1), thread id, up to 127 addresses
//   offset 139264  131072 bytes of text: Python's stacks, up to the first zero
//
// The file's size is sealed, so what does not fit is left out, whoever writes it.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/futex.h"

namespace hpresil {

constexpr std::size_t kStackPlaces = 128;
constexpr std::size_t kStackFrames = 127;
constexpr std::size_t kStackTextBytes = std::size_t{128} << 10;

struct ThreadStack {
  Word ready;  // written last
  std::uint32_t thread;
  std::array<std::uint64_t, kStackFrames> frames;  // innermost first, the signal handler's own included
};

struct StackArea {
  Word asked;
  Word claimed;
  Word told;
  alignas(4096) std::array<ThreadStack, kStackPlaces> places;
  std::array<char, kStackTextBytes> text;
};

static_assert(sizeof(ThreadStack) == 1024);
static_assert(offsetof(StackArea, places) == 4096 && offsetof(StackArea, text) == 4096 + kStackPlaces * 1024);

}  // namespace hpresil
