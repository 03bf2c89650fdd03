"""Named ranges on a profiler's timeline (NVTX).

Without a profiler, or in a build without the NVTX headers, a range does nothing. Ranges of one thread
nest; enter and leave one in the same thread.
"""

from __future__ import annotations

from types import TracebackType

from hpresil.native._core import pop_trace_range, push_trace_range


class Range:
    """A context manager that shows its block under ``name`` in Nsight Systems."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> Range:
        push_trace_range(self.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pop_trace_range()
