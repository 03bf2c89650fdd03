"""The coordinator's shell: connections, the clock, the journal and the rendezvous store.

Every event goes through one queue and one task: it is applied to the machine, journalled if it changed
the state, made durable if a decision follows from it, and only then are the actions sent. So what an agent
has been told is never forgotten. Store traffic needs no decision: it is answered at once, past the queue.

An agent speaks for the workers of its own node; what it says about others is dropped and counted. Agents
of other nodes keep copies of the state. If this process is lost, one of them makes a server from its copy,
which begins when enough of the others have come (see `gathering`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from hpresil.base.deadline import now as monotonic
from hpresil.base.tasks import Tasks
from hpresil.membership.connections import Connections, Listen
from hpresil.membership.copies import Copies
from hpresil.membership.gathering import Gathering, Hold
from hpresil.membership.ledger import Ledger, is_decision
from hpresil.membership.machine import Event, NodeLost, Tick
from hpresil.membership.messages import (
    AgentJoined,
    Alive,
    Answered,
    Broken,
    Deliver,
    Dismissed,
    FenceWorker,
    FromAgent,
    JobEnded,
    Probe,
    Rejected,
    Relayed,
    Roster,
    StartWorker,
    StateCopy,
    StoreGet,
    StoreSet,
    ToAgent,
    Withdrawn,
    WorkerLeft,
    WorkerLost,
)
from hpresil.membership.refusals import Refusals, presumptuous
from hpresil.membership.rendezvous import Rendezvous
from hpresil.membership.state import State
from hpresil.membership.tally import Tally

log = logging.getLogger(__name__)

TICK_S = 0.25


class Server:
    """The coordinator of one job.

    Single-threaded: everything happens in the event loop that called `start`.

    Args:
        path: The Unix socket to listen on; its directory must be closed to others.
        state: How the job begins, or a copy of the state of a coordinator that was lost.
        taking_over: The node it lives on, its term, and of which copy; None for the first coordinator.
        shift_s: What to add to its clock to have the first one's.
        journal_path: The journal to create; None for a job that keeps none.
        listen: Where agents of other nodes come in; None: there are none.
        on_begun: Called when it takes over and enough agents have come, before anything else.
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
        state: State,
        *,
        taking_over: tuple[str, int, StateCopy] | None = None,
        shift_s: float = 0.0,
        journal_path: Path | None = None,
        listen: Listen | None = None,
        on_begun: Callable[[], None] | None = None,
        on_state: Callable[[State], None] | None = None,
        on_said: Callable[[str, FromAgent], None] | None = None,
        on_lost: Callable[[str, str], None] | None = None,
        refusals: Refusals | None = None,
        now: Callable[[], float] = monotonic,
        tick_s: float = TICK_S,
    ) -> None:
        self._ledger = Ledger(state, journal_path, inherited=taking_over is not None)
        self._gathering = Gathering(state, *taking_over) if taking_over else None
        self.path, self._refusals = path, refusals or Refusals()
        self._on_state, self._on_begun, self._on_lost = on_state, on_begun, on_lost
        self._hold = Hold(on_said, held=taking_over is not None)
        self._now = now
        self._tick_s = tick_s
        self._rendezvous = Rendezvous(state.generation)
        self._connections = Connections(
            path, listen, self._refusals, on_said=self._take, on_gone=self._gone, on_defect=self._defect
        )
        inherited = taking_over[2] if taking_over else None
        self._tally = Tally(inherited.holds if inherited else {})
        self._copies = Copies(self._connections.tell, self._others, self._tally, shift_s, inherited)
        self._expected = {node.name: node.address for node in state.nodes.values()}
        self._events: asyncio.Queue[tuple[Event, str, int]] = asyncio.Queue()
        self._tasks = Tasks(self._defect)
        self._failed: asyncio.Future[None] | None = None
        self._begun: asyncio.Future[bool] | None = None
        self._open = self._deciding = False

    @property
    def state(self) -> State:
        """After the last event."""
        return self._ledger.state

    @property
    def term(self) -> int:
        """Which coordinator of the job it is."""
        return self._gathering.term if self._gathering is not None else self.state.term

    @property
    def refused(self) -> dict[str, int]:
        """How many connections and messages were turned away, by kind."""
        return {**self._refusals.counts, "store": self._rendezvous.refused}

    async def start(self) -> None:
        """Listen and decide, until `close`. Raises ConfigError for an unusable socket path or port."""
        self._failed, self._begun = asyncio.Future(), asyncio.Future()
        if self._gathering is None:
            self._ledger.open()
        self._open = True
        await self._connections.open()
        for work in (self._decide(), self._tick()):
            self._tasks.start(work)

    async def begun(self) -> bool:
        """Wait until it decides; False if it took over and too few agents have come."""
        assert self._begun is not None
        return await asyncio.shield(self._begun)

    async def visit(
        self, joined: AgentJoined, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Serve an agent that came through this node's door and has introduced itself."""
        await self._connections.serve(reader, writer, joined)

    def break_off(self, broken: Broken) -> None:
        """End the job for a reason that was found here."""
        self._decide_on(broken)

    async def failed(self) -> None:
        """Wait for a defect to end the coordinator, and raise its error."""
        assert self._failed is not None
        await asyncio.shield(self._failed)

    async def close(self) -> None:
        """Stop deciding, close every connection, and remove the socket; a second call does nothing."""
        self._open = False
        await self._tasks.close()
        await self._connections.close()
        if self._failed is not None:
            self._failed.cancel()
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(False)
        self._ledger.close()

    def _defect(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            log.error("the coordinator failed", exc_info=error)
            self._failed.set_exception(error)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._tick_s)
            self._connections.drop_silent()
            if self._gathering is None or self._gathering.over:
                all_heard = self._tally.came if self._events.empty() and not self._deciding else None
                self._copies.tick(self.state, self._now(), all_heard=all_heard)
                self._decide_on(Tick())

    async def _decide(self) -> None:
        assert self._begun is not None
        if self._gathering is not None:
            took_over = await self._gathering.outcome()
            if took_over is None:
                self._send(Withdrawn(term=self.term))
                self._begun.set_result(False)
                return
            self._ledger.open()
            if self._on_begun is not None:
                self._on_begun()
            self._hold.release()
            await self._apply(took_over)
        self._begun.set_result(True)
        while True:
            event, node, number = await self._events.get()
            self._deciding = True
            await self._apply(event, node, number)
            self._deciding = False

    def _decide_on(self, event: Event, node: str = "", number: int = 0) -> None:
        self._events.put_nowait((event, node, number))

    async def _apply(self, event: Event, node: str = "", number: int = 0) -> None:
        now, before = self._now(), self.state
        actions = self._ledger.step(event, now)
        self._tally.applied(node, number)
        state = self.state
        self._rendezvous.advance(state.generation)
        if isinstance(event, WorkerLost | WorkerLeft):
            self._rendezvous.forget(event.worker)
        durable = True
        if state is not before:
            self._copies.changed(before, state, now)
            durable = await self._ledger.durable(actions, now)
        if (broken := self._ledger.broken()) is not None:
            self.break_off(broken)
        for action in actions:
            if durable or isinstance(action, JobEnded) or not is_decision(action):
                self._send(action)
        if state is not before and self._on_state is not None:
            self._on_state(state)

    def _send(self, action: ToAgent) -> None:
        match action:
            case Deliver():
                nodes = [self._node_of(action.to)]
            case FenceWorker():
                nodes = [self._node_of(action.worker)]
            case StartWorker() | Probe() | Rejected() | Dismissed() | Answered():
                nodes = [action.node]
            case Roster() | JobEnded() | Withdrawn():
                nodes = self._connections.nodes()
        for node in nodes:
            self._connections.tell(node, action)

    def missing(self) -> dict[str, str]:
        """Return the agents (node → HOST:PORT) of the coordinator before this one that are not here."""
        there = self._connections.nodes()
        return {node: address for node, address in self._expected.items() if node not in there}

    def _others(self) -> set[str]:
        return set(self._connections.nodes()) - {self.state.host}

    def _node_of(self, worker: int) -> str:
        known = self.state.workers.get(worker)
        return known.node if known is not None else ""

    # ------------------------------------------------------------------ what agents say

    def _gone(self, node: str, why: str) -> None:
        if self._open:
            if self._on_lost is not None:
                self._on_lost(node, why)
            if self._gathering is None or not self._gathering.went(node):
                self._decide_on(NodeLost(node=node, why=why))

    def _take(self, node: str, message: FromAgent) -> None:
        if not self._open:
            return
        number = 0 if isinstance(message, Alive) else self._tally.next(node)
        if (wrong := presumptuous(self.state, node, message)) is not None:
            self._refusals.turn_away(*wrong)
            return
        if isinstance(message, AgentJoined):
            self._joined(message)
            return
        self._hold.pass_on(node, message)
        if isinstance(message, Alive):
            return
        if isinstance(message, Relayed) and isinstance(message.said, StoreSet | StoreGet):
            self._rendezvous_message(message.worker, message.said)
            return
        if number:
            self._decide_on(message, node, number)

    def _joined(self, joined: AgentJoined) -> None:
        kept = self._gathering.came(joined) if self._gathering is not None else None
        self._tally.joined(joined.node, joined.said, known=kept is not None)
        if joined.build:  # a job of several nodes
            self._connections.tell(joined.node, self._copies.accepted(self.term, kept or []))
            if joined.node != self.state.host:
                self._copies.welcome(joined.node, self.state, self._now(), joined.said)
        self._hold.pass_on(joined.node, joined)
        if kept is None:
            self._decide_on(joined)

    def _rendezvous_message(self, worker: int, said: StoreSet | StoreGet) -> None:
        if worker not in self.state.members:
            self._refusals.turn_away("store of a non-member", f"worker {worker}")
            return
        for answer in self._rendezvous.take(worker, said):
            self._send(Deliver(to=answer.to, what=answer.values))
