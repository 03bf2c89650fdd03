"""In which way a worker stands still, told from the times that its threads leave in the liveness page (pure).

Two threads of every worker leave the time once a second: a native one that never takes the interpreter lock
(GIL), and one of Python's, which has to take it. Nobody ever asks the worker, so nobody waits for it:

* Both are fresh: the GIL can be had; it is the thread of the training that does not go on (it waits, or runs
  in a loop).
* Only the native one is: the GIL is held, by a native call that does not release it.
* Neither is: no thread of the process runs (it is frozen, or gets no processor time).
"""

from __future__ import annotations

LATE_S = 1.4
"""Both leave the time once a second; what is older than this was missed, even on a busy machine."""

FREE = "the GIL is free, its training thread alone stands still"
HELD = "the GIL is held since {seconds:.1f} s, by a native call that does not release it"
FROZEN = "no thread of it has run for {seconds:.1f} s"


def words(stamp_s: float, native_s: float, interpreter_s: float, now: float) -> str:
    """Return in which way it stands still, "" if that cannot be told.

    Args:
        stamp_s: The time of its last sign of progress, in monotonic seconds like all others.
        native_s: When its native thread ran last, 0 if it never did.
        interpreter_s: When a thread of it had the GIL last, 0 if none tries.
        now: The time at which it is judged.
    """
    if not native_s or not interpreter_s:
        return ""
    if now - native_s > LATE_S:
        return FROZEN.format(seconds=now - native_s)
    if now - interpreter_s > LATE_S:
        return HELD.format(seconds=now - interpreter_s)
    return FREE if interpreter_s > stamp_s else ""
