"""How a worker ties itself to its agent: its liveness page is held and its trace attached, once a process.

The problem: two ways lead here. The launcher's start-up code does it before the script is imported, so that
no second of the worker's life is unwatched; a program that the launcher starts as it is (``--no-python``)
only calls `hpresil.init` some time later. Both need the same, in the same order, and neither may do it twice.

The design: `hold` does all of it and remembers the page; whoever comes second gets the page that is held.

Not guaranteed: a program that closes the descriptors it inherited, or starts the script without them, has no
page; that is an error of `hold`.
"""

from __future__ import annotations

import faulthandler
import os
from collections.abc import Mapping

from hpresil.base import spans
from hpresil.base.errors import ConfigError
from hpresil.native import Page, attach_spans
from hpresil.runtime import standing

PAGE, TRACE, ARENAS = "HPRESIL_PAGE_FD", "HPRESIL_TRACE_FD", "HPRESIL_ARENA_FDS"
_held: Page | None = None


def held() -> Page | None:
    """Return the page that this process holds; None before `hold`. Any thread."""
    return _held


def hold(environment: Mapping[str, str]) -> Page:
    """Hold the liveness page and attach the trace; from here on the agent hears of our end at once.

    The page also shows that the interpreter lock can be had, and a fatal signal is marked in it. The
    descriptors are not inherited by what this process starts. If a page is held already, that one is
    returned and nothing else done. Main thread.

    Args:
        environment: Names the descriptors: the page's, and, unless absent or empty, the trace's and those of
            the arenas, which are only kept from being inherited.

    Raises:
        ConfigError: A descriptor is no number, or is not open in this process.
        NativeError: The page was held in another process, or the handlers cannot be installed.
    """
    global _held
    if _held is not None:
        return _held
    page_fd, trace_fd = _own(environment[PAGE], PAGE), None
    if environment.get(TRACE):
        trace_fd = _own(environment[TRACE], TRACE)
    for fd in environment.get(ARENAS, "").split(","):
        if fd:
            _own(fd, ARENAS)
    faulthandler.enable()  # before ours, which mark the page and then pass the signal on
    page = Page.attach(page_fd)
    page.hold()
    page.install_fatal_handlers()
    standing.begin(page)
    _held = page
    if trace_fd is not None:
        spans.attach(trace_fd)
        attach_spans(trace_fd)
    return page


def _own(text: str, variable: str) -> int:
    """Return the descriptor, kept from processes that this one starts."""
    try:
        fd = int(text)
        os.set_inheritable(fd, False)
    except (ValueError, OSError) as error:
        raise ConfigError(
            f"{variable} names descriptor {text!r}, which this process does not have ({error}): start "
            "workers with `hpresil run`, and let a program in between pass on all descriptors it inherits"
        ) from None
    return fd
