// A worker that is being killed by its own signal says so before it does.
//
// A fault in the process (SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT) may write a core file of all its
// memory before the kernel gives the robust futex's notice: seconds. The handler marks the page,
// wakes the watchers, restores the action that was there before (Python's faulthandler, or the
// default) and raises the signal again, so that traceback, core and exit status stay what they were.
//
// It runs on an alternate stack in the thread that installed it; a stack overflow of another thread
// gives only the kernel's notice. A forked child inherits the handler, which then marks nothing.
#pragma once

#include <memory>

#include "liveness/page.h"

namespace hpresil {

// For one page per process; a second page replaces the first. The page stays mapped for good.
void install_fatal_handlers(std::shared_ptr<Page> page);

// No core files, piped or plain. RLIMIT_CORE 1 rather than 0: the kernel ignores 0 for a core pattern
// that is a pipe and takes 1 as "none at all".
void forbid_core_dumps();

}  // namespace hpresil
