// The priority of threads that copy while somebody else computes.
//
// In the background they take what nobody wants: SCHED_IDLE, or a tenth of a core that others want too, where
// a process may not take a thread out of SCHED_IDLE again (that needs CAP_SYS_NICE or a limit `nice -e`).
// When somebody waits for them they are raised, so that nobody waits for a thread that waits for a processor.
// All functions: any thread.
#pragma once

#include <sys/types.h>

namespace hpresil {

// Whether this process may raise what it has lowered. Tried once, by a thread that ends.
bool may_raise();

// The calling thread steps back.
void step_back() noexcept;

// Thread `tid` of this process, 0 for the calling one, runs like any other again; without the right to do so
// nothing changes.
void raise_thread(pid_t tid) noexcept;

}  // namespace hpresil
