"""Where the coordinator is: `coordinator.json` in the job's run directory, for agents that come later.

The first coordinator is where ``--coordinator`` says. One that has taken over is somewhere else, so it says
where; an agent that comes anew tries that place first. Without a run directory that the nodes share, the
address of the new coordinator has to be given to ``--coordinator``.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import NamedTuple

from hpresil.base.deadline import Deadline
from hpresil.base.errors import ConfigError, DeadlineExceeded
from hpresil.launch.cluster import Cluster
from hpresil.membership import door
from hpresil.membership.client import Client

FILE = "coordinator.json"
TRY_S = 2.0
PAUSE_S = 0.05


class Place(NamedTuple):
    """The node the coordinator lives on, where it listens, and its term."""

    node: str
    address: str
    term: int


def write(run_dir: Path, place: Place) -> None:
    """Say where the coordinator is."""
    temporary = run_dir / f".{FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(place._asdict()) + "\n")
    os.replace(temporary, run_dir / FILE)


def read(run_dir: Path) -> Place | None:
    """Return where the last coordinator of a job in ``run_dir`` said that it is."""
    try:
        found = json.loads((run_dir / FILE).read_text())
        return Place(str(found["node"]), str(found["address"]), int(found["term"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


async def is_elsewhere(cluster: Cluster, run_dir: Path) -> bool:
    """Return whether a coordinator of this job lives on another node than the one it began on."""
    place = read(run_dir)
    if place is None or place.node == cluster.node:
        return False
    try:
        _, writer = await door.call(*_parts(place.address), cluster.credentials, TRY_S)
    except (OSError, TimeoutError, ConfigError, ValueError):
        return False
    writer.transport.abort()
    return True


async def call(client: Client, cluster: Cluster, run_dir: Path) -> None:
    """Connect ``client`` to the coordinator, wherever it is by now.

    Raises:
        ConfigError: Whoever is there does not belong to the job.
        DeadlineExceeded: Nobody is there within `Cluster.connect_timeout_s`.
    """
    deadline = Deadline(cluster.connect_timeout_s, f"a connection to the coordinator at {cluster.place}")
    why = ""
    while not deadline.expired():
        place, try_s = read(run_dir), min(TRY_S, deadline.remaining())
        moved = place is not None and place.term > 1 and place.node != cluster.node
        for address in (place.address, cluster.place) if place is not None and moved else (cluster.place,):
            try:
                return client.connected(*await door.call(*_parts(address), cluster.credentials, try_s))
            except (OSError, TimeoutError) as error:
                why = os.strerror(error.errno) if error.errno else why or "no answer"
            except ValueError:
                why = f"{address!r} is no address"
        await asyncio.sleep(PAUSE_S)
    raise DeadlineExceeded(
        f"no coordinator answered at {cluster.place} within {cluster.connect_timeout_s:g} s ({why}): start "
        f"the first node, check --coordinator, and let port {cluster.port} through the firewalls between"
    )


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
