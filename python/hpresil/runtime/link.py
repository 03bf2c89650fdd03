"""The worker's connection to whoever decides: its agent, or itself when there is no launcher.

`AgentLink` is a Unix socket with one reading thread. `SoloLink` runs the coordinator's own state
machine in the process, with one worker, so that a script without a launcher takes the same path.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Protocol

from hpresil.base.deadline import now
from hpresil.base.errors import HpresilError
from hpresil.membership import machine, messages as m
from hpresil.membership.framing import BlockingChannel
from hpresil.membership.state import Settings, begin

CONNECT_S = 30.0
READ_S = 60.0  # how often an idle reader looks up; the agent's death closes the connection

OnMessage = Callable[[m.ToWorker], None]


class Link(Protocol):
    """Sends what the worker says and delivers what it is told."""

    def send(self, message: m.FromWorker) -> None:
        """Send ``message``; thread safe; ignored once the connection is gone."""

    def start(self, on_message: OnMessage, on_lost: Callable[[str], None]) -> None:
        """Begin to deliver messages, on a thread of the link."""

    def close(self) -> None:
        """End the connection and its thread."""


class AgentLink:
    """A connection to the agent's Unix socket at ``path``."""

    def __init__(self, path: str, worker: int, pid: int) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(CONNECT_S)
        sock.connect(path)
        self._channel = BlockingChannel(sock)
        self._closing = False
        self._thread: threading.Thread | None = None
        self.send(m.Hello(worker=worker, pid=pid))

    def send(self, message: m.FromWorker) -> None:
        """Send ``message``; thread safe; ignored once the connection is gone."""
        try:
            self._channel.send(message)
        except (OSError, HpresilError):
            # The reading thread sees the same end of the connection and tells the engine.
            pass

    def start(self, on_message: OnMessage, on_lost: Callable[[str], None]) -> None:
        """Begin to deliver messages on the control thread."""

        def read() -> None:
            why = ""
            try:
                while True:
                    message = self._channel.receive(READ_S)
                    if message is not None:  # None: a healthy job has nothing to say for hours
                        on_message(message)
            except (OSError, HpresilError) as error:
                why = str(error)
            if not self._closing:
                on_lost(why)

        self._thread = threading.Thread(target=read, name="hpresil-control", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Close the socket; the thread ends by itself."""
        self._closing = True
        self._channel.close()
        if self._thread is not None:
            self._thread.join(5.0)


class SoloLink:
    """A job of one worker: the coordinator's machine in this process, no socket, no agent."""

    def __init__(self, settings: Settings) -> None:
        self._lock = threading.RLock()
        self._state = begin(settings, now())
        self._on_message: OnMessage | None = None
        self._inbox: list[m.FromAgent] = []
        self._busy = False

    def start(self, on_message: OnMessage, on_lost: Callable[[str], None]) -> None:
        """Let the coordinator begin with this worker."""
        self._on_message = on_message
        self._feed(m.AgentJoined(node="local", pid=0))
        self._feed(m.WorkerStarted(worker=0, node="local", pid=0))

    def send(self, message: m.FromWorker) -> None:
        """Pass ``message`` to the machine."""
        if isinstance(message, m.Committed | m.Logged | m.StoreSet | m.StoreGet | m.GroupBuilt | m.Hello):
            return
        self._feed(m.Relayed(worker=0, said=message))

    def close(self) -> None:
        """Nothing to end."""

    def _feed(self, event: m.FromAgent) -> None:
        # Handling an action makes the worker speak again; a queue keeps the events in order.
        with self._lock:
            self._inbox.append(event)
            if self._busy:
                return
            self._busy = True
            try:
                while self._inbox:
                    self._state, actions = machine.step(self._state, self._inbox.pop(0), now())
                    for action in actions:
                        self._act(action)
            finally:
                self._busy = False

    def _act(self, action: m.ToAgent) -> None:
        assert self._on_message is not None
        match action:
            case m.Deliver():
                self._on_message(action.what)
            case m.FenceWorker():
                self._on_message(m.Stop(reason=action.why))
            case m.JobEnded() if action.status:
                self._on_message(m.Stop(reason=action.reason))
            case _:
                pass
