"""The coordinator's shell: a Unix socket, the clock, the journal and the rendezvous store.

Every event goes through one queue and one task: it is applied to the machine, journalled if it
changed the state, made durable if a decision follows from it, and only then are the actions sent.
So what an agent has been told is never forgotten. Store traffic needs no decision: it is answered
at once, past the queue, and is neither journalled nor part of the machine.

A connection is an agent's once its first message is `AgentJoined`. Whatever is no valid message, is
said by the wrong user, or about another node's worker, closes that connection or is dropped; it is
logged once for each kind and counted, and never ends the process.

Not guaranteed: surviving the agent's process. A coordinator that takes over needs more than this.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from hpresil.base import spans
from hpresil.base.deadline import now as monotonic
from hpresil.base.errors import TransferFailed
from hpresil.membership import endpoint, machine
from hpresil.membership.framing import FROM_AGENT, read_message, write_message
from hpresil.membership.journal import Journal
from hpresil.membership.machine import Event, Tick
from hpresil.membership.messages import (
    AgentJoined,
    Decision,
    Deliver,
    FenceWorker,
    FromAgent,
    JobEnded,
    Relayed,
    StartWorker,
    StoreGet,
    StoreSet,
    ToAgent,
    View,
    WorkerLost,
    WorkerStarted,
)
from hpresil.membership.refusals import Refusals
from hpresil.membership.rendezvous import Rendezvous
from hpresil.membership.state import Settings, State

log = logging.getLogger(__name__)

TICK_S = 0.25
FIRST_MESSAGE_S = 10.0
CLOSE_S = 2.0
MAX_UNSENT_BYTES = 64 << 20


class Server:
    """The coordinator of one job.

    Single-threaded: everything happens in the event loop that called `start`.

    Args:
        path: The Unix socket to listen on; its directory must be closed to others.
        settings: The job's.
        journal_path: The journal to create; None for a job that keeps none.
        on_state: Called with each new state, after its actions were sent.
        now: The clock, in monotonic seconds.
        tick_s: How often deadlines are looked at.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        journal_path: Path | None = None,
        on_state: Callable[[State], None] | None = None,
        now: Callable[[], float] = monotonic,
        tick_s: float = TICK_S,
    ) -> None:
        self.path = path
        self.state = machine.begin(settings, now())
        self._refusals = Refusals()
        self._journal_path = journal_path
        self._journal: Journal | None = None
        self._on_state = on_state
        self._now = now
        self._tick_s = tick_s
        self._rendezvous = Rendezvous(settings.first_generation)
        self._agents: dict[str, asyncio.StreamWriter] = {}
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._handlers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._failed: asyncio.Future[None] | None = None
        self._server: asyncio.Server | None = None

    @property
    def refused(self) -> dict[str, int]:
        """How many connections and messages were turned away, by kind."""
        return {**self._refusals.counts, "store": self._rendezvous.refused}

    async def start(self) -> None:
        """Listen and decide, until `close`. Raises ConfigError for an unusable socket path."""
        self._failed = asyncio.get_running_loop().create_future()
        sock = endpoint.listening_socket(self.path)
        try:
            if self._journal_path is not None:
                self._journal = Journal(self._journal_path, self.state.settings, self.state.since)
            self._server = await asyncio.start_unix_server(self._serve, sock=sock)
        except BaseException:
            sock.close()
            self.path.unlink(missing_ok=True)
            raise
        for work in (self._decide(), self._tick()):
            self._keep(asyncio.create_task(work))

    async def failed(self) -> None:
        """Wait for a defect or a failing disk to end the coordinator, and raise its error."""
        assert self._failed is not None
        await asyncio.shield(self._failed)

    async def close(self) -> None:
        """Stop deciding, close every connection, and remove the socket; a second call does nothing."""
        if self._server is not None:
            self._server.close()
            self._server = None
            self.path.unlink(missing_ok=True)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._hang_up()
        if self._failed is not None and not self._failed.done():
            self._failed.cancel()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    async def _hang_up(self) -> None:
        """Close every connection and wait for its handler, which must not be cancelled.

        The streams of some Python versions report a cancelled handler as a defect.
        """
        await asyncio.sleep(0)  # handlers of connections just accepted begin, and see that it is over
        for hang_up in (asyncio.StreamWriter.close, _abort):
            for writer in self._handlers.values():
                hang_up(writer)
            if self._handlers:
                await asyncio.wait(list(self._handlers), timeout=CLOSE_S)

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._handlers.pop(task, None)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._failed is not None and not self._failed.done():
            log.error("the coordinator failed", exc_info=error)
            self._failed.set_exception(error)

    # ------------------------------------------------------------------ deciding

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self._events.put_nowait(Tick())

    async def _decide(self) -> None:
        while True:
            event = await self._events.get()
            now = self._now()
            state, actions = machine.step(self.state, event, now)
            changed = state is not self.state
            self.state = state
            self._rendezvous.advance(state.generation)
            if isinstance(event, WorkerLost):
                self._rendezvous.forget(event.worker)
            if changed and self._journal is not None:
                self._journal.append(event, now, state.generation)
                if any(map(_is_decision, actions)):
                    await asyncio.to_thread(self._journal.sync)
                    spans.add("decide", int(now * 1e9), generation=state.generation)
            for action in actions:
                self._send(action)
            if changed and self._on_state is not None:
                self._on_state(state)

    def _send(self, action: ToAgent) -> None:
        match action:
            case Deliver():
                nodes = [self._node_of(action.to)]
            case StartWorker() | FenceWorker():
                nodes = [self._node_of(action.worker)]
            case JobEnded():
                nodes = list(self._agents)
        for node in nodes:
            self._tell(node, action)

    def _node_of(self, worker: int) -> str:
        known = self.state.workers.get(worker)
        return known.node if known is not None else ""

    def _tell(self, node: str, action: ToAgent) -> None:
        agent = self._agents.get(node)
        if agent is None or agent.is_closing():
            self._refusals.turn_away(
                "no connection", f"{type(action).__name__} for node {node!r} is not sent"
            )
            return
        if agent.transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self._refusals.turn_away("not reading", f"the agent of node {node!r} is disconnected")
            agent.transport.abort()
            return
        write_message(agent, action)

    # ------------------------------------------------------------------ connections

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:
            writer.close()
            return
        task = asyncio.current_task()
        assert task is not None
        self._handlers[task] = writer
        task.add_done_callback(self._ended)
        node: str | None = None
        try:
            node = await self._welcome(reader, writer)
            while node is not None and (message := await read_message(reader, FROM_AGENT)) is not None:
                self._take(node, message)
        except TransferFailed as error:
            self._refusals.turn_away("invalid frame", str(error))
        except (ConnectionError, TimeoutError) as error:
            self._refusals.turn_away("broken connection", str(error) or "no first message in time")
        finally:
            if node is not None and self._agents.get(node) is writer:
                del self._agents[node]
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str | None:
        """Return the node that this connection speaks for, None if it may not speak."""
        sock = writer.get_extra_info("socket")
        pid, uid = endpoint.peer(sock)
        if not endpoint.is_same_user(sock):
            self._refusals.turn_away("other user", f"process {pid} of user {uid}")
            return None
        async with asyncio.timeout(FIRST_MESSAGE_S):
            first = await read_message(reader, FROM_AGENT)
        if first is None:
            return None
        if not isinstance(first, AgentJoined):
            self._refusals.turn_away("no introduction", f"process {pid} began with {type(first).__name__}")
            return None
        if first.node in self._agents:
            self._refusals.turn_away(
                "second agent", f"process {pid} claims node {first.node!r}, which is connected"
            )
            return None
        self._agents[first.node] = writer
        self._events.put_nowait(first)
        return first.node

    def _take(self, node: str, message: FromAgent) -> None:
        if isinstance(message, Relayed | WorkerStarted | WorkerLost):
            known = self.state.workers.get(message.worker)
            if known is not None and known.node != node:
                self._refusals.turn_away(
                    "foreign worker", f"node {node!r} speaks for worker {message.worker}"
                )
                return
        if isinstance(message, Relayed) and isinstance(message.said, StoreSet | StoreGet):
            self._rendezvous_message(message.worker, message.said)
            return
        self._events.put_nowait(message)

    def _rendezvous_message(self, worker: int, said: StoreSet | StoreGet) -> None:
        if worker not in self.state.members:
            self._refusals.turn_away("store of a non-member", f"worker {worker}")
            return
        if isinstance(said, StoreSet):
            answers = self._rendezvous.set(said.generation, said.key, said.value)
        else:
            answers = self._rendezvous.get(worker, said.request, said.generation, said.keys)
        for answer in answers:
            self._send(Deliver(to=answer.to, what=answer.values))


def _abort(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


def _is_decision(action: ToAgent) -> bool:
    return isinstance(action, JobEnded) or (
        isinstance(action, Deliver) and isinstance(action.what, View | Decision)
    )
