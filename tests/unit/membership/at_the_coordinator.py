"""A coordinator on a Unix socket, and agents that talk to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from hpresil.base.deadline import now as monotonic
from hpresil.membership import messages as m
from hpresil.membership.client import Client
from hpresil.membership.server import Server
from hpresil.membership.state import Settings, begin

FACTS = {"config.slots": "4"}
LIMIT_S = 20.0


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S):
            await scenario()

    asyncio.run(bounded())


@asynccontextmanager
async def serving(directory: Path, **more: object) -> AsyncIterator[Server]:
    state = begin(Settings(workers=2, spares=1, save_directory="/saved"), monotonic())
    server = Server(directory / "sockets" / "c", state, tick_s=0.02, **more)  # type: ignore[arg-type]
    await server.start()
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def agent(server: Server, node: str = "host") -> AsyncIterator[Client]:
    client = Client()
    await client.connect(server.path, timeout_s=5)
    client.join(m.AgentJoined(node=node, pid=os.getpid()))
    try:
        yield client
    finally:
        await client.close()


def say(client: Client, worker: int, said: m.FromWorker) -> None:
    client.say(m.Relayed(worker=worker, said=said))


async def until(client: Client, kind: type[m.Message], to: int | None = None) -> m.Message:
    """Return the next action of ``kind``, or the next message of it delivered to worker ``to``."""
    async for action in client:
        if isinstance(action, m.Deliver) and isinstance(action.what, kind) and action.to == to:
            return action.what
        if isinstance(action, kind):
            return action
    raise AssertionError(f"the connection ended before {kind.__name__}")


async def ends(client: Client) -> AsyncIterator[m.ToAgent]:
    """Yield everything up to the job's end."""
    async for action in client:
        yield action
        if isinstance(action, m.JobEnded):
            return


async def first_view(client: Client, workers: tuple[int, int] = (0, 1)) -> m.View:
    for worker in workers:
        say(client, worker, m.Ready(facts=FACTS))
    view = await until(client, m.View, workers[1])
    assert isinstance(view, m.View)
    return view


async def whole_job(client: Client, workers: tuple[int, int] = (0, 1)) -> m.JobEnded:
    """Train to version 1 and finish."""
    view = await first_view(client, workers)
    for worker in view.members:
        say(client, worker, m.Report(generation=1, version=-1, phase="empty"))
    await until(client, m.Decision, workers[1])
    say(client, workers[1], m.Restored(generation=1, version=0, state_bytes=1))
    for worker in view.members:
        say(client, worker, m.Finished(generation=1, version=1))
    ended = await until(client, m.JobEnded)
    assert isinstance(ended, m.JobEnded)
    return ended
