"""The coordinator's connections: one an agent.

The agent of the coordinator's own node comes through a Unix socket, those of other nodes through a `Door`.
A connection is an agent's once its first message is `AgentJoined` of a node that is not connected yet and
of the same version of hpresil. Whatever is no valid message closes its connection, is logged once for
each kind and counted, and never ends the process. An agent of another node that says nothing for
`SILENCE_S` seconds is disconnected: it says `Alive` every second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hpresil.base.deadline import now
from hpresil.base.errors import TransferFailed
from hpresil.base.version import VERSION
from hpresil.membership import endpoint
from hpresil.membership.door import Door
from hpresil.membership.framing import FROM_AGENT, close_once, read_message, write_message
from hpresil.membership.messages import AgentJoined, FromAgent, Rejected, ToAgent
from hpresil.membership.refusals import Refusals
from hpresil.membership.tls import Credentials

FIRST_MESSAGE_S = 10.0
SILENCE_S = 5.0
PAUSE_S = 1.0
CLOSE_S = 2.0
MAX_UNSENT_BYTES = 64 << 20


@dataclass(frozen=True)
class Listen:
    """Where agents of other nodes find the coordinator, and what they must prove."""

    host: str
    port: int
    credentials: Credentials


class Connections:
    """The agents that are connected.

    Single-threaded: to be used from the event loop that called `open`.

    Args:
        path: The Unix socket to listen on; its directory must be closed to others.
        listen: The port for other nodes; None: there are none.
        refusals: Counts what is turned away.
        on_said: Called with every message of an agent, `AgentJoined` first, in order.
        on_gone: Called when an agent's connection has ended, and why.
        on_defect: Called with the error of a handler that should not have one.
    """

    def __init__(
        self,
        path: Path,
        listen: Listen | None,
        refusals: Refusals,
        *,
        on_said: Callable[[str, FromAgent], None],
        on_gone: Callable[[str, str], None],
        on_defect: Callable[[BaseException], None],
    ) -> None:
        self.path = path
        self._listen, self._refusals = listen, refusals
        self._on_said, self._on_gone, self._on_defect = on_said, on_gone, on_defect
        self._agents: dict[str, asyncio.StreamWriter] = {}
        self._heard: dict[str, float] = {}
        self._looked = now()
        self._handlers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._door: Door | None = None

    async def open(self) -> None:
        """Listen. Raises ConfigError for a socket path or a port that cannot be used."""
        sock = endpoint.listening_socket(self.path)
        try:
            self._server = await asyncio.start_unix_server(self._serve_here, sock=sock)
            if self._listen is not None:
                door = Door(self.serve, self._listen.credentials, self._refusals)
                await door.open(self._listen.host, self._listen.port)
                self._door = door
        except BaseException:
            if self._server is not None:
                self._server.close()
                self._server = None
            sock.close()
            self.path.unlink(missing_ok=True)
            raise

    async def close(self) -> None:
        """Close every connection and remove the socket; a second call does nothing."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)
        if self._door is not None:
            door, self._door = self._door, None
            await door.close()
        for visitor in self._agents.values():
            visitor.close()
        await asyncio.sleep(0)  # handlers of connections just accepted begin, and see that it is over
        # A handler must not be cancelled: the streams of some Python versions report that as a defect.
        for hang_up in (asyncio.StreamWriter.close, _abort):
            for writer in self._handlers.values():
                hang_up(writer)
            if self._handlers:
                await asyncio.wait(list(self._handlers), timeout=CLOSE_S)

    def nodes(self) -> list[str]:
        """Return the nodes that are connected."""
        return list(self._agents)

    def tell(self, node: str, action: ToAgent) -> None:
        """Send without waiting; what cannot be sent is counted."""
        agent = self._agents.get(node)
        if agent is None or agent.is_closing():
            what = type(action).__name__
            self._refusals.turn_away("no connection", f"{what} for node {node!r} is not sent")
            return
        if agent.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._refusals.turn_away("not reading", f"the agent of node {node!r} is disconnected")
            agent.transport.abort()
            return
        write_message(agent, action)

    def drop_silent(self) -> None:
        """Disconnect agents of other nodes that have said nothing for too long; to be called often.

        While this process itself did not run, nobody could be heard: that time does not count.
        """
        pause, self._looked = now() - self._looked, now()
        if pause > PAUSE_S:
            self._heard = {node: heard + pause for node, heard in self._heard.items()}
        silent = {node: now() - heard for node, heard in self._heard.items() if now() - heard > SILENCE_S}
        for node, silence_s in silent.items():
            self._refusals.turn_away("silent", f"node {node!r} for {silence_s:.1f} s")
            self._hang_up(node, f"it was silent for {silence_s:.1f} s")

    async def _serve_here(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._handlers[task] = writer
        task.add_done_callback(self._ended)
        sock = writer.get_extra_info("socket")
        if not endpoint.is_same_user(sock):
            pid, uid = endpoint.peer(sock)
            self._refusals.turn_away("other user", f"process {pid} of user {uid}")
            writer.close()
            return
        await self.serve(reader, writer)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._handlers.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_defect(error)

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, first: AgentJoined | None = None
    ) -> None:
        """Serve one connection to its end. ``first``: its first message, if that was read already."""
        node, why = None, "the connection was closed"
        try:
            node = await self._introduced(reader, writer, first)
            while node is not None and (message := await read_message(reader, FROM_AGENT)) is not None:
                if node in self._heard:
                    self._heard[node] = now()
                self._on_said(node, message)
        except TransferFailed as error:
            why = str(error)
            self._refusals.turn_away("invalid frame", why)
        except (OSError, TimeoutError) as error:
            why = str(error) or "no message in time"
            self._refusals.turn_away("broken connection", why)
        finally:
            if node is not None and self._agents.get(node) is writer:
                self._hang_up(node, why)
            close_once(writer)
            with contextlib.suppress(OSError):
                async with asyncio.timeout(CLOSE_S):
                    await writer.wait_closed()

    def _hang_up(self, node: str, why: str) -> None:
        writer = self._agents.pop(node)
        self._heard.pop(node, None)
        writer.transport.abort()
        self._on_gone(node, why)

    async def _introduced(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, known: AgentJoined | None
    ) -> str | None:
        """Return the node that this connection speaks for, None if it may not speak."""
        first: FromAgent | None = known
        if first is None:
            async with asyncio.timeout(FIRST_MESSAGE_S):
                first = await read_message(reader, FROM_AGENT)
        if first is None:
            return None
        if not isinstance(first, AgentJoined):
            self._refusals.turn_away("no introduction", f"it began with {type(first).__name__}")
            return None
        reason = ""
        if not first.node:
            self._refusals.turn_away("no introduction", "an agent of a node without a name")
            return None
        if first.term and first.node in self._agents:
            self._hang_up(first.node, "it came again on another connection")
        if first.node in self._agents:
            reason = f"node {first.node!r} is connected already (process {first.pid} claims it again)"
            reason += "; give each agent a --node-name of its own"
            self._refusals.turn_away("second agent", reason)
        elif first.build not in ("", VERSION):
            reason = f"it runs hpresil {first.build}, the coordinator {VERSION}; install the same version"
            self._refusals.turn_away("other version", reason)
        if reason:
            write_message(writer, Rejected(node=first.node, reason=reason))
            return None
        self._agents[first.node] = writer
        if first.address:
            self._heard[first.node] = now()
        self._on_said(first.node, first)
        return first.node


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
