"""What a transfer is given and what it says of itself: sources, settings, outcomes. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hpresil.base.errors import DeadlineExceeded, TransferFailed

CHUNK_BYTES = 1 << 20
"""The grid of every frame of a job; both ends of a transfer must agree on it."""


@dataclass(frozen=True)
class Route:
    """One way to an agent: numeric address, port, the address of this machine to leave by ("": any)."""

    host: str
    port: int
    leave_by: str = ""

    def __str__(self) -> str:
        there = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{self.leave_by} -> {there}" if self.leave_by else there


@dataclass(frozen=True)
class Source:
    """An agent that has the version. With several routes the fastest is found by measuring once.

    ``unix_path``: its socket, when it is on this machine; ``routes`` are not looked at then.
    """

    name: str
    routes: tuple[Route, ...] = ()
    unix_path: str = ""


@dataclass(frozen=True)
class FetchSettings:
    """How a fetch goes about it.

    Attributes:
        streams: Connections a source, 1 to 64.
        at_once: Sources asked at the same time; the others in the list replace one that fails.
        window: Chunks asked for ahead, a connection.
        chunk_bytes: The frame's grid, 4096 to 16 MiB.
        connect_s: The longest wait for a connection.
        stall_s: The longest wait for one more byte.
        deadline_s: The longest duration of the whole.
        appear_s: How long a source may wait until it is offered the version.
        copy_threads: Of a copy on this machine.
    """

    streams: int = 2
    at_once: int = 1
    window: int = 4
    chunk_bytes: int = CHUNK_BYTES
    connect_s: float = 5.0
    stall_s: float = 10.0
    deadline_s: float = 600.0
    appear_s: float = 0.0
    copy_threads: int = 2


@dataclass(frozen=True)
class ServerSettings:
    """What a server allows.

    Attributes:
        host: Numeric address to listen at; "": no TCP. There is no default on purpose.
        port: 0 takes a free one.
        unix_path: Where clients of this machine connect; "": nowhere.
        handshake_s: The longest time without a proof.
        stall_s: The longest wait for a client that takes no bytes.
        idle_s: The longest wait for a client's next request.
        most_waiting: Connections without a proof; one more pushes out the oldest.
        most_clients: Connections served at once. Who is one too many is told so, asks the next source in its
            list, and the last one again until there is room or its deadline has passed.
    """

    host: str = ""
    port: int = 0
    unix_path: str = ""
    handshake_s: float = 5.0
    stall_s: float = 10.0
    idle_s: float = 60.0
    most_waiting: int = 256
    most_clients: int = 256


@dataclass(frozen=True)
class SourceReport:
    """What came of one source: bytes of right chunks, breaks by reason, bytes per second by route."""

    received_bytes: int
    breaks: int
    reasons: Mapping[str, int]
    last_error: str
    measured_bytes_per_s: Mapping[str, float]
    route: str


@dataclass(frozen=True)
class Outcome:
    """How a fetch ended: ``state`` is "done", "failed", "cancelled" or "deadline".

    ``here`` holds a byte a chunk, 1 where the chunk is here and right; a later fetch takes it and asks for
    the others only.
    """

    state: str
    elapsed_s: float
    here: bytes
    sources: Mapping[str, SourceReport] = field(default_factory=dict)

    def check(self) -> None:
        """Return if the version is here whole.

        Raises:
            DeadlineExceeded: It did not arrive in time.
            TransferFailed: No source was left, or the fetch was cancelled.
        """
        if self.state == "done":
            return
        why = "; ".join(
            f"{name}: {report.breaks} breaks, last: {report.last_error}"
            for name, report in self.sources.items()
            if report.breaks or report.last_error
        )
        text = f"{sum(self.here)} of {len(self.here)} chunks arrived within {self.elapsed_s:.3g} s"
        kind = DeadlineExceeded if self.state == "deadline" else TransferFailed
        raise kind(f"the fetch ended as {self.state}: {text}{'; ' + why if why else ''}")
