"""Frames with known content, servers and fetches that end, and a proxy that harms what passes through it."""

from __future__ import annotations

import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hpresil import native
from hpresil.snapshot.transfer import (
    Fetch,
    FetchSettings,
    FrameServer,
    Outcome,
    Route,
    ServerSettings,
    Source,
)

SECRET = b"the secret of the test's job"
JOB = "transfer-test"
GENERATION, VERSION = 3, 17
CHUNK = 16384
SEED = 20261123


def content(nbytes: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(nbytes)


class MemoryFrame:
    """A memory file as frames are: sealed against shrinking, with a mapping."""

    def __init__(self, nbytes: int, data: bytes | None = None) -> None:
        self.nbytes = nbytes
        self.fd = native.memfd("transfer-test", nbytes)
        native.seal(self.fd, shrink=True)
        self.mapping = native.Mapping(self.fd, nbytes)
        if data is not None:
            with memoryview(self.mapping) as view:
                view[:] = data

    def bytes(self) -> bytes:
        return memoryview(self.mapping).tobytes()


def settings(**changes: object) -> FetchSettings:
    chosen: dict[str, object] = {"chunk_bytes": CHUNK, "stall_s": 5.0, "connect_s": 3.0, "deadline_s": 60.0}
    return FetchSettings(**{**chosen, **changes})  # type: ignore[arg-type]


def route(port: int) -> tuple[Route, ...]:
    return (Route("127.0.0.1", port),)


def source(port: int, name: str = "source") -> Source:
    return Source(name, route(port))


def fetch(
    to: MemoryFrame, *sources: Source, secret: bytes = SECRET, here: bytes = b"", **changes: object
) -> Fetch:
    return Fetch(
        secret, JOB, GENERATION, VERSION, to.fd, to.nbytes, sources, settings=settings(**changes), here=here
    )


@contextmanager
def serving(*frames: MemoryFrame, **changes: object) -> Iterator[FrameServer]:
    chosen: dict[str, object] = {"host": "127.0.0.1", "stall_s": 5.0}
    server = FrameServer(SECRET, JOB, ServerSettings(**{**chosen, **changes}))  # type: ignore[arg-type]
    try:
        for frame in frames:
            crc = native.crc32c(frame.mapping.address, frame.nbytes)
            server.offer(GENERATION, VERSION, frame.fd, frame.nbytes, crc=crc, chunk_bytes=CHUNK)
        yield server
    finally:
        server.close()


class Proxy:
    """Passes connections on to a port; ``harm(n, total, data)`` may change or end what the server sends.

    ``n`` counts connections from 0, ``total`` the bytes of this connection that have passed before ``data``;
    None ends the connection.
    """

    def __init__(self, port: int, harm: Callable[[int, int, bytes], bytes | None]) -> None:
        self._to, self._harm = port, harm
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.connections = 0
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            number, self.connections = self.connections, self.connections + 1
            far = socket.create_connection(("127.0.0.1", self._to), timeout=10)
            for sock in (near, far):
                sock.settimeout(30)
                self._sockets.append(sock)
            for args in ((near, far, None), (far, near, number)):
                self._threads.append(threading.Thread(target=self._pump, args=args))
                self._threads[-1].start()

    def _pump(self, come: socket.socket, go: socket.socket, number: int | None) -> None:
        total = 0
        try:
            while data := come.recv(16384):
                passed = data if number is None else self._harm(number, total, data)
                if passed is None:
                    break
                total += len(data)
                go.sendall(passed)
        except OSError:
            pass
        for sock in (come, go):
            _shut(sock)

    def close(self) -> None:
        _shut(self._listener)
        self._threads[0].join(35)
        for sock in self._sockets:
            _shut(sock)
        for thread in self._threads:
            thread.join(35)
            assert not thread.is_alive()
        for sock in (self._listener, *self._sockets):
            sock.close()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def native_threads() -> int:
    names = [Path(f"/proc/self/task/{task}/comm") for task in os.listdir("/proc/self/task")]
    return sum(path.read_text().startswith("hpresil") for path in names if path.exists())


FRAMES_OPEN = [0]  # the test's own descriptors, which live until the process ends


def frame(nbytes: int, seed: int | None = None) -> MemoryFrame:
    FRAMES_OPEN[0] += 1
    return MemoryFrame(nbytes, None if seed is None else content(nbytes, seed))


def ended(running: Fetch, timeout_s: float = 60.0) -> Outcome:
    assert running.wait(timeout_s)
    return running.outcome()


@contextmanager
def nothing_leaking() -> Iterator[None]:
    """Check that no descriptor and no thread of the native core is left, the test's own frames apart."""
    before = descriptors(), native_threads()
    FRAMES_OPEN[0] = 0
    yield
    assert native_threads() == before[1]
    assert descriptors() <= before[0] + FRAMES_OPEN[0]
