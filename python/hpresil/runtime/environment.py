"""What the launcher hands to its workers: variables and inherited file descriptors.

Absent variables mean that the script was started by hand: one worker, no agent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpresil.base.errors import ConfigError
from hpresil.native import Page
from hpresil.runtime import presence

LOOPBACK = "127.0.0.1"


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
    """Read ``env``; hold the liveness page (`presence.hold`) unless that was done before. Main thread.

    Raises:
        ConfigError: A variable is not a number, or names a descriptor that is not there.
        NativeError: The page cannot be held.
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
    page, address = presence.held(), env.get("HPRESIL_NODE_ADDR", LOOPBACK)
    if page is None and socket is not None and presence.PAGE in env:
        page = presence.hold(env)
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
