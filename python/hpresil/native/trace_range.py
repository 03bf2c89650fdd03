"""Named ranges on a profiler's timeline (NVTX), one for every span, under its name.

In a build without the NVTX headers there are none, and a span costs nothing for it.
"""

from __future__ import annotations

from hpresil.base import spans
from hpresil.native._core import built_with, pop_trace_range, push_trace_range


def show_spans() -> None:
    """Show every span of this process in Nsight Systems from here on."""
    if built_with()["nvtx"]:
        spans.profile(push_trace_range, pop_trace_range)
