"""The agent's Unix socket: one connection a worker.

A connection is a worker's once its first message says so and three things agree: the peer runs as our
user, it belongs to the session of a worker that lives, and that worker is the one it claims to be. So
neither another user nor a forked data loader nor a process that survived its worker can speak for it. A
connection that sends what is no message is closed, and its worker is of no use any more."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from hpresil.base.errors import TransferFailed
from hpresil.launch.workers import Workers
from hpresil.membership import endpoint
from hpresil.membership.framing import FROM_WORKER, read_message, write_message
from hpresil.membership.messages import FromWorker, Hello, ToWorker
from hpresil.membership.refusals import Refusals

log = logging.getLogger(__name__)
HELLO_S = 10.0
MAX_UNSENT_BYTES = 64 << 20


class Links:
    """The connections of all live workers.

    Args:
        workers: Who may connect.
        on_said: Called with every message of a live worker, `Hello` included, in order.
        on_broken: Called when a worker's connection cannot be used any more while the worker lives.
        refusals: Counts those who are no worker.
    """

    def __init__(
        self,
        workers: Workers,
        on_said: Callable[[int, FromWorker], None],
        on_broken: Callable[[int, str], None],
        refusals: Refusals,
    ) -> None:
        self._workers, self._refusals = workers, refusals
        self._on_said, self._on_broken = on_said, on_broken
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self, path: Path) -> None:
        """Listen at ``path``."""
        self._server = await asyncio.start_unix_server(self._serve, sock=endpoint.listening_socket(path))

    def send(self, worker: int, message: ToWorker) -> bool:
        """Queue a message; return whether the worker is connected."""
        writer = self._writers.get(worker)
        if writer is None or writer.is_closing():
            return False
        if writer.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._on_broken(worker, f"it has not read {MAX_UNSENT_BYTES >> 20} MiB of messages")
            return False
        write_message(writer, message)
        return True

    def connected(self, worker: int) -> bool:
        """Return whether the worker has said hello and not hung up."""
        return worker in self._writers

    def drop(self, worker: int) -> None:
        """Close the connection of a worker that is gone."""
        writer = self._writers.pop(worker, None)
        if writer is not None:
            writer.close()

    async def close(self) -> None:
        """Stop listening and close all connections."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        worker = -1
        try:
            async with asyncio.timeout(HELLO_S):
                first = await read_message(reader, FROM_WORKER)
            if not isinstance(first, Hello) or not self._welcome(first, writer):
                self._refusals.turn_away("no worker", f"it began with {type(first).__name__}")
                return
            worker = first.worker
            self._writers[worker] = writer
            self._on_said(worker, first)
            while (message := await read_message(reader, FROM_WORKER)) is not None:
                if self._workers.get(worker) is not None:
                    self._on_said(worker, message)
        except TransferFailed as error:
            kind = "no worker" if worker < 0 else "worker's frame"
            self._refusals.turn_away(kind, f"worker {worker} said what is no message: {error}")
            if self._workers.get(worker) is not None:
                self._on_broken(worker, str(error))
        except (ConnectionError, TimeoutError):
            pass  # the end of the process is noticed elsewhere
        finally:
            self._tasks.discard(task)
            if worker >= 0 and self._writers.get(worker) is writer:
                del self._writers[worker]
            writer.close()

    def _welcome(self, hello: Hello, writer: asyncio.StreamWriter) -> bool:
        sock = writer.get_extra_info("socket")
        pid, uid = endpoint.peer(sock)
        known = self._workers.get(hello.worker)
        try:
            session = os.getsid(pid)
        except ProcessLookupError:
            session = -1
        if uid != os.getuid() or known is None or known.pid != session or hello.worker in self._writers:
            log.warning("refused: process %d of user %d says it is worker %d", pid, uid, hello.worker)
            return False
        return True
