// The agent's side of a stack dump: asks a worker's threads where they stand, waits, finds the names.
//
// The worker is a child of this process and not reaped, so its ids are its own. Nothing here touches the
// worker but by signals and by reading /proc, so no privilege is needed: any user's agent can do it, in
// containers too, where tracing another process is often forbidden.
//
// Thread safety: one asker at a time for each page. ask_for_stacks() returns at once; wait_for_stacks()
// blocks up to its deadline and, if the kernel does not let go of the worker's list of mappings, until it is
// killed.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

#include "liveness/page.h"

namespace hpresil {

struct ThreadReport {
  pid_t thread;
  std::string name;                   // as the kernel has it
  std::string where;                  // the kernel function it sleeps in, if the kernel tells
  char state;                         // R, S, D, T, …, '?' if it is gone
  bool blocks;                        // it blocks the signal, as hpresil's own native threads do
  std::vector<std::uint64_t> frames;  // return addresses, innermost first; empty: it did not answer
};

struct StackReport {
  std::string python;  // what Python's fault handler wrote, empty if nothing
  bool told;           // and whether it came to its end
  std::vector<ThreadReport> threads;
  std::string mappings;  // the worker's /proc/PID/maps
};

// Sends the question to every thread of `pid`; from here on those that can answer run none of their own code.
// Returns how many threads there are.
std::size_t ask_for_stacks(Page& page, pid_t pid);

// Waits until every thread that can answer has, at most `timeout_ns`.
StackReport wait_for_stacks(Page& page, pid_t pid, std::int64_t timeout_ns);

// The native stacks as text, a line a frame: module, function if its file names it, offset.
std::string describe(const StackReport& report);

}  // namespace hpresil
