"""What the launcher hands to its workers: variables and inherited file descriptors.

Absent variables mean that the script was started by hand: one worker, no agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpresil.base import spans
from hpresil.base.errors import ConfigError
from hpresil.native import Page, attach_spans
from hpresil.runtime import standing

LOOPBACK = "127.0.0.1"
_held: Page | None = None


def adopt_page(page: Page) -> None:
    """Use a liveness page that the launcher's start-up code has attached and holds already."""
    global _held
    _held = page


@dataclass(frozen=True)
class Environment:
    """The place of this process in its job."""

    worker: int
    socket: str | None
    page: Page | None
    arenas: tuple[int, ...]
    resume: str | None
    local_rank: int
    address: str = LOOPBACK
    """At which the other members reach this one."""
    node: str = ""
    """The name of the node; workers of one node read each other's gradients."""


def read(env: Mapping[str, str]) -> Environment:
    """Read ``env``; attach and hold the liveness page unless that was done before.

    Raises:
        ConfigError: The variables contradict each other.
    """
    socket = env.get("HPRESIL_SOCKET")
    try:
        worker = int(env.get("HPRESIL_WORKER", "0"))
        arenas = tuple(int(fd) for fd in env.get("HPRESIL_ARENA_FDS", "").split(",") if fd)
        local_rank = int(env.get("LOCAL_RANK", "0"))
    except ValueError as error:
        raise ConfigError(
            f"a launcher variable is not a number ({error}): start workers with `hpresil run`"
        ) from None
    page, address = _held, env.get("HPRESIL_NODE_ADDR", LOOPBACK)
    if page is None and socket is not None and "HPRESIL_PAGE_FD" in env:
        page = Page.attach(int(env["HPRESIL_PAGE_FD"]))
        page.hold()
        page.install_fatal_handlers()
        standing.begin(page)
        if "HPRESIL_TRACE_FD" in env:
            spans.attach(int(env["HPRESIL_TRACE_FD"]))
            attach_spans(int(env["HPRESIL_TRACE_FD"]))
    return Environment(
        worker=worker,
        socket=socket,
        page=page,
        arenas=arenas,
        resume=env.get("HPRESIL_RESUME") or None,
        local_rank=local_rank,
        address=address,
        node=env.get("HPRESIL_NODE", ""),
    )
