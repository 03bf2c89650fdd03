// The worker's side of a stack dump: what its threads do when the agent asks where they stand.
//
// The agent asks only a worker that it has given up. Each thread that gets kStackSignal writes the return
// addresses of its own stack into the area behind the liveness page and then never goes on: from there to the
// kill that follows no code of the script runs any more. Nothing here needs the interpreter lock, memory or a
// file: only addresses are written, the agent finds their names later.
//
// Python's stacks are written by its fault handler on kTextSignal, to text_fd() and through on_told(), which
// it calls afterwards because it chains. A thread that is stopped, in an uninterruptible sleep, or blocks the
// signal says nothing, and the agent writes that down in its place.
#pragma once

#include <memory>

#include "liveness/page.h"

namespace hpresil {

int stack_signal();  // to a thread: write your stack, then stand still
int text_signal();   // to one thread that stands still: write the interpreter's stacks

// Installs both handlers for this process; a second page replaces the first. A forked child inherits handlers
// that do nothing. The page stays mapped for good. One thread at a time. Without a question in the page both
// signals have no effect.
void install_stack_handlers(std::shared_ptr<Page> page);

// The page's own descriptor, its offset set to where the text begins. Lives as long as the page.
int text_fd(const Page& page);

}  // namespace hpresil
