"""How an agent gets at a frame of another one: through the memory of one machine, or over the network."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from socket import AF_INET, AF_INET6

from hpresil.base.errors import ConfigError
from hpresil.membership.peer_messages import Holder
from hpresil.snapshot.transfer import Route, Source


def to(holders: Sequence[Holder], machine: str) -> list[Source]:
    """Return where to take a frame from, for an agent on ``machine``.

    ``holders`` have it, in the order of preference, the source last. Its memory comes first if it is here:
    the others have not everything yet.
    """
    found = [Source(f"{h.host}:{h.port}", (Route(h.host, h.port),)) for h in holders if h.port]
    source = holders[-1] if holders else Holder()
    if source.socket and source.machine == machine:
        found.insert(0, Source("memory", unix_path=source.socket))
    return found


def this_machine() -> str:
    """Return what two processes have in common that see the same memory and the same network."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.stat('/proc/self/ns/net').st_ino}"


async def numeric(host: str) -> str:
    """Return the address of a host in numbers. Raises ConfigError if it has none."""
    family = AF_INET6 if ":" in host else AF_INET
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, family=family)
    except OSError as error:
        raise ConfigError(f"{host} has no address: {error}") from error
    return str(found[0][4][0])
