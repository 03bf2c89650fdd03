"""The construction of a gloo group in a thread that somebody else can cut short.

The connections of a finished group are told from other sockets of the process by address: one end of each
is the listener of a member, and members publish theirs under a key of their own.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from hpresil.base.errors import GenerationChanged
from hpresil.comm.sockets import Endpoint, inodes, opened_since, shut_down

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

_Gloo: Any = dist.ProcessGroupGloo  # its options are missing from the stubs
THREADS = 1  # gloo wants one for collectives; sends and receives use none
_taking = threading.Lock()  # one construction at a time lists the sockets of the process


class Connections:
    """The connected sockets of one group. Any thread."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)

    def shut_down(self) -> None:
        """Shut all of them down; those that are closed already, or replaced, are left alone."""
        for endpoint in self.endpoints:
            shut_down(endpoint)


class Rendezvous:
    """Meets the other ranks; `run` in one thread, the rest from any.

    Args:
        store: Name space of this generation alone.
        rank: Place of this process in the view.
        size: Number of members, at least 2.
        hostname: Address to listen on, and the only one.
        timeout_s: Of gloo's own waits while it connects, in seconds.

    Attributes:
        settled: Set when there is an outcome, or nobody wants one any more.
        ended: Set when `run` is over.
    """

    def __init__(self, store: Store, *, rank: int, size: int, hostname: str, timeout_s: float) -> None:
        self.settled, self.ended = threading.Event(), threading.Event()
        self._store, self._rank, self._size = store, rank, size
        self._hostname, self._timeout_s = hostname, timeout_s
        self._lock = threading.Lock()
        self._before: frozenset[int] | None = None
        self._listener: tuple[str, int] | None = None
        self._backend: Any = None
        self._connections: Connections | None = None
        self._error: Exception | None = None
        self._unwanted = False

    def run(self) -> None:
        """Build the group; nothing is raised, `take` has the outcome."""
        try:
            self._build()
        except Exception as error:
            with self._lock:
                self._error = self._error or error
        with self._lock:
            rejected = self._backend if self._unwanted else None
            if rejected is not None:
                self._backend = None
        del rejected
        self.ended.set()
        self.settled.set()

    def interrupt(self) -> None:
        """Cut `run` short. Does not wait for it."""
        with self._lock:
            if self.ended.is_set():
                return
            self._unwanted = True
            self._error = self._error or GenerationChanged("the rendezvous was interrupted")
            before, listener = self._before, self._listener
        end = getattr(self._store, "end", None)
        if end is not None:
            end()
        if before is not None and listener is not None:
            for endpoint in opened_since(before):
                if endpoint.peer is not None and listener in (endpoint.local, endpoint.peer):
                    shut_down(endpoint)
            _stand_in(listener, self._size, self._rank)
        self.settled.set()

    def take(self) -> tuple[Any, Connections | None, Exception | None]:
        """Return (backend, connections, error) once; what comes later is dropped by `run`.

        Backend and connections are None when there is an error, or no outcome yet.
        """
        with self._lock:
            self._unwanted = True
            backend, self._backend = self._backend, None
            return backend, self._connections, self._error

    def _build(self) -> None:
        options = _Gloo._Options()
        options._timeout, options._threads = timedelta(seconds=self._timeout_s), THREADS
        with _taking:
            before = inodes()
            options._devices = [_Gloo.create_device(hostname=self._hostname, lazy_init=False)]
            listener = next(e.local for e in opened_since(before) if e.listening)
        with self._lock:
            if self._unwanted:
                return
            self._before, self._listener = before, listener
        self._store.set(f"listener/{self._rank}", f"{listener[0]} {listener[1]}")
        backend = _Gloo(self._store, self._rank, self._size, options)
        published = self._store.multi_get([f"listener/{rank}" for rank in range(self._size)])
        listeners = {_address(value) for value in published}
        ends = [e for e in opened_since(before) if e.peer is not None and {e.local, e.peer} & listeners]
        with self._lock:
            self._backend, self._connections = backend, Connections(ends)


def _address(published: bytes | str) -> tuple[str, int]:
    host, port = (published if isinstance(published, str) else published.decode()).split(" ")
    return host, int(port)


def _stand_in(listener: tuple[str, int], size: int, rank: int) -> None:
    """Connect to our own listener in place of every peer, and leave again at once."""
    for pair in range(size):
        if pair != rank:
            with contextlib.suppress(OSError), socket.create_connection(listener, timeout=0.1) as visitor:
                visitor.sendall(struct.pack("=q", pair))
