"""The coordinator's shell: connections, the clock, the journal and the rendezvous store.

Every event goes through one queue and one task: it is applied to the machine, journalled if it
changed the state, made durable if a decision follows from it, and only then are the actions sent.
So what an agent has been told is never forgotten. Store traffic needs no decision: it is answered
at once, past the queue, and is neither journalled nor part of the machine.

An agent speaks for the workers of its own node; what it says about others is dropped and counted.

Not guaranteed: surviving the agent's process. A coordinator that takes over needs more than this.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from hpresil.base import spans
from hpresil.base.deadline import now as monotonic
from hpresil.membership import machine
from hpresil.membership.connections import Connections, Listen
from hpresil.membership.journal import Journal
from hpresil.membership.machine import Event, NodeLost, Tick
from hpresil.membership.messages import (
    Alive,
    Broken,
    Decision,
    Deliver,
    FenceWorker,
    FromAgent,
    JobEnded,
    Probe,
    Rejected,
    Relayed,
    Roster,
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


class Server:
    """The coordinator of one job.

    Single-threaded: everything happens in the event loop that called `start`.

    Args:
        path: The Unix socket to listen on; its directory must be closed to others.
        settings: The job's.
        journal_path: The journal to create; None for a job that keeps none.
        listen: Where agents of other nodes come in; None: there are none.
        on_state: Called with each new state, after its actions were sent.
        on_said: Called with what agents say, before anything follows from it.
        on_lost: Called with the name of a node whose connection has ended, and why.
        refusals: Where to count what is turned away; None: its own.
        now: The clock, in monotonic seconds.
        tick_s: How often deadlines are looked at.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        *,
        journal_path: Path | None = None,
        listen: Listen | None = None,
        on_state: Callable[[State], None] | None = None,
        on_said: Callable[[str, FromAgent], None] | None = None,
        on_lost: Callable[[str, str], None] | None = None,
        refusals: Refusals | None = None,
        now: Callable[[], float] = monotonic,
        tick_s: float = TICK_S,
    ) -> None:
        self.state = machine.begin(settings, now())
        self._refusals = refusals or Refusals()
        self._journal_path = journal_path
        self._journal: Journal | None = None
        self._on_state, self._on_said, self._on_lost = on_state, on_said, on_lost
        self._now = now
        self._tick_s = tick_s
        self._rendezvous = Rendezvous(settings.first_generation)
        self._connections = Connections(
            path, listen, self._refusals, on_said=self._take, on_gone=self._gone, on_defect=self._defect
        )
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._open = False

    @property
    def path(self) -> Path:
        """The Unix socket."""
        return self._connections.path

    @property
    def refused(self) -> dict[str, int]:
        """How many connections and messages were turned away, by kind."""
        return {**self._refusals.counts, "store": self._rendezvous.refused}

    async def start(self) -> None:
        """Listen and decide, until `close`. Raises ConfigError for an unusable socket path or port."""
        self._failed = asyncio.get_running_loop().create_future()
        if self._journal_path is not None:
            self._journal = Journal(self._journal_path, self.state.settings, self.state.since)
        self._open = True
        await self._connections.open()
        for work in (self._decide(), self._tick()):
            self._keep(asyncio.create_task(work))

    def break_off(self, broken: Broken) -> None:
        """End the job for a reason that was found here."""
        self._events.put_nowait(broken)

    async def failed(self) -> None:
        """Wait for a defect to end the coordinator, and raise its error."""
        assert self._failed is not None
        await asyncio.shield(self._failed)

    async def close(self) -> None:
        """Stop deciding, close every connection, and remove the socket; a second call does nothing."""
        self._open = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._connections.close()
        if self._failed is not None and not self._failed.done():
            self._failed.cancel()
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._defect(error)

    def _defect(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            log.error("the coordinator failed", exc_info=error)
            self._failed.set_exception(error)

    # ------------------------------------------------------------------ deciding

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self._connections.drop_silent()
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
            durable = not changed or await self._written_down(event, now, actions)
            for action in actions:
                if durable or isinstance(action, JobEnded) or not _is_decision(action):
                    self._send(action)
            if changed and self._on_state is not None:
                self._on_state(state)

    async def _written_down(self, event: Event, at: float, actions: Sequence[ToAgent]) -> bool:
        """Journal an event, durably if a decision follows; return False if that is not possible any more."""
        if self._journal is None:
            return self._journal_path is None
        try:
            self._journal.append(event, at, self.state.generation)
            if any(map(_is_decision, actions)):
                await asyncio.to_thread(self._journal.sync)
                spans.add("decide", int(at * 1e9), generation=self.state.generation)
        except OSError as error:
            self._journal.give_up()
            self._journal = None
            log.error("the journal cannot be written", exc_info=error)
            reason = f"the journal {self._journal_path} cannot be written: {error.strerror}"
            self.break_off(Broken(reason=f"{reason}; make room there", sound=True))
            return False
        return True

    def _send(self, action: ToAgent) -> None:
        match action:
            case Deliver():
                nodes = [self._node_of(action.to)]
            case FenceWorker():
                nodes = [self._node_of(action.worker)]
            case StartWorker() | Probe() | Rejected():
                nodes = [action.node]
            case Roster() | JobEnded():
                nodes = self._connections.nodes()
        for node in nodes:
            self._connections.tell(node, action)

    def _node_of(self, worker: int) -> str:
        known = self.state.workers.get(worker)
        return known.node if known is not None else ""

    # ------------------------------------------------------------------ what agents say

    def _gone(self, node: str, why: str) -> None:
        if self._open:
            if self._on_lost is not None:
                self._on_lost(node, why)
            self._events.put_nowait(NodeLost(node=node, why=why))

    def _take(self, node: str, message: FromAgent) -> None:
        if getattr(message, "node", node) != node:
            self._refusals.turn_away(
                "foreign node", f"node {node!r} says {type(message).__name__} for another"
            )
            return
        if isinstance(message, Relayed | WorkerStarted | WorkerLost):
            known = self.state.workers.get(message.worker)
            if known is not None and known.node != node:
                self._refusals.turn_away(
                    "foreign worker", f"node {node!r} speaks for worker {message.worker}"
                )
                return
        if self._on_said is not None:
            self._on_said(node, message)
        if isinstance(message, Alive):
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


def _is_decision(action: ToAgent) -> bool:
    return isinstance(action, JobEnded) or (
        isinstance(action, Deliver) and isinstance(action.what, View | Decision)
    )
