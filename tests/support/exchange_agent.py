"""What an agent does with frames, in a process of its own, to be killed.

    exchange_agent.py NODE MACHINE SOCKET NBYTES

Books, memory, door and engine are the agent's. In place of its one worker is a function that fills a frame as
soon as it is asked to, with the `known_frame` of the version. In place of the coordinator are
lines of JSON: orders at the standard input, at the standard output what the agent says, with the time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from frame_bytes import known_frame
from hpresil.launch import ways
from hpresil.launch.exchange import Book, Exchange
from hpresil.launch.frame_traffic import FrameTraffic, Ways
from hpresil.launch.memory import Arenas
from hpresil.launch.peers import Peers
from hpresil.launch.picture import Picture
from hpresil.launch.taking import Taking
from hpresil.membership import messages as m, tls
from hpresil.membership.peer_messages import Fetch
from hpresil.membership.refusals import Refusals
from hpresil.snapshot.preface import HEADER_BYTES

HOST = "127.0.0.1"
SECRET = b"the secret of this job, 32 bytes"
KEY = b"the frames' key, also 32 bytes.."
WAIT_S = 20.0
THREADS = 4


def say(what: str, **fields: Any) -> None:
    print(json.dumps({"what": what, "at": time.monotonic(), **fields}), flush=True)


class TellingPeers(Peers):
    """Tells when a frame begins to come, and when it has come or will not."""

    async def fetch(
        self, address: str, wish: Fetch, frame: int, begun: Callable[[], None] = lambda: None
    ) -> int:
        def telling() -> None:
            say("begun", version=wish.version, frame=frame)
            begun()

        try:
            nbytes = await super().fetch(address, wish, frame, telling)
        except BaseException as error:
            say("broke", version=wish.version, error=str(error))
            raise
        say("came", version=wish.version, frame=frame)
        return nbytes


class Agent:
    """One node."""

    def __init__(self, node: str, socket: Path, nbytes: int) -> None:
        self.arenas, self.picture, refusals = Arenas(), Picture(), Refusals()
        self._node, self._nbytes, self._tasks = node, nbytes, set[asyncio.Task[None]]()
        nothing: Any = lambda *args, **fields: None  # noqa: E731
        rest: Any = SimpleNamespace(send=self._to_worker, event=nothing, say=nothing)
        client: Any = SimpleNamespace(say=self._to_coordinator)
        self.frames = FrameTraffic(
            Ways(
                node, rest, client, self.arenas, self.picture, rest, rest, lambda why: say("defect", why=why)
            )
        )
        book = Book(self.frames.stored, self.frames.hold, self.frames.release)
        self.exchange = Exchange(self.arenas, book, refusals, WAIT_S, host=HOST, socket=socket)
        self.taking = Taking(self.arenas, self.exchange, WAIT_S)
        credentials = tls.from_secret(SECRET)
        self.peers = TellingPeers(credentials, refusals, self.exchange, self.taking, wait_s=WAIT_S)
        self.frames.peers = self.peers

    async def open(self) -> None:
        address = await self.peers.open(HOST)
        self.exchange.open(KEY)
        self.frames.footprint(m.Footprint(frame_bytes=self._nbytes))
        while not self.arenas.frame_bytes:
            await asyncio.sleep(0.005)
        await self.arenas.map_all()
        say("open", address=address, fds=self.arenas.fds)

    def decide(self, order: dict[str, Any]) -> None:
        """A view and its decision arrive."""
        generation = order["generation"]
        workers = {int(worker): node for worker, node in order["workers"].items()}
        self.picture.generation = generation
        self.frames.view()
        self.frames.roster(m.Roster(generation=generation, workers=workers, addresses=order["addresses"]))
        sources = {int(newcomer): source for newcomer, source in order["sources"].items()}
        decision = m.Decision(
            generation=generation,
            target=order["target"],
            sources=sources,
            roll=[],
            slots=[],
            store=order["store"],
        )
        self.picture.decision(decision)
        (ours,) = [worker for worker, node in workers.items() if node == self._node]
        self.frames.decision(ours, decision, new=True)

    def _to_worker(self, to: int, message: Any) -> None:
        match message:
            case m.Serve():
                task = asyncio.get_running_loop().create_task(self._fill(to, message))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case m.StateReady(version=version, frame=frame):
                say("ready", generation=message.generation, version=version, frame=frame)

    async def _fill(self, worker: int, serve: m.Serve) -> None:
        fd = self.arenas.fds[serve.frame]
        content = await asyncio.to_thread(known_frame, self._nbytes, serve.version)
        os.pwrite(fd, bytes(HEADER_BYTES), 0)
        await asyncio.to_thread(os.pwrite, fd, content[HEADER_BYTES:], HEADER_BYTES)
        os.pwrite(fd, content[:HEADER_BYTES], 0)
        served = m.Served(
            generation=serve.generation, version=serve.version, frame=serve.frame, frame_bytes=len(content)
        )
        self.frames.served(worker, served)

    def _to_coordinator(self, message: Any) -> None:
        match message:
            case m.FrameSealed(version=version, frame=frame):
                say("sealed", version=version, frame=frame)
            case m.Relayed(said=m.RestoreFailed() as failed):
                say("failed", generation=failed.generation, error=failed.error)

    async def close(self) -> None:
        await self.frames.close()
        await self.peers.close()
        self.arenas.close()


async def obey(agent: Agent) -> None:
    orders = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while line := await orders.readline():
        order = json.loads(line)
        match order["do"]:
            case "decide":
                agent.decide(order)
            case "restored":
                agent.frames.restored(order["worker"])
            case "count":
                assert agent.exchange.engine is not None
                say("counted", counters=agent.exchange.engine.counters())


async def main(node: str, machine: str, socket: Path, nbytes: int) -> None:
    ways.this_machine = lambda: machine
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: say("defect", why=repr(context)))
    pool = ThreadPoolExecutor(THREADS)  # all of them now: threads that appear later are leaks
    loop.set_default_executor(pool)
    together = threading.Barrier(THREADS)
    await asyncio.gather(*(asyncio.to_thread(together.wait, 10) for _ in range(THREADS)))
    agent = Agent(node, socket, nbytes)
    watching = loop.create_task(agent.exchange.watch())
    try:
        await agent.open()
        await obey(agent)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await agent.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4])))
