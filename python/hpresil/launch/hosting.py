"""What only one node has at a time: the coordinator, and the files in which the whole job is written down.

The first node begins with it. When that is lost another agent takes over, from its copy of the state: it
goes on with the same files where the nodes share the run directory, and begins its own where they do not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpresil.base.deadline import now
from hpresil.base.errors import ConfigError, DataError
from hpresil.launch import whereabouts
from hpresil.launch.job import Job
from hpresil.launch.news import News
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Chronicle, Forwarded, Heritage, Progress
from hpresil.launch.run_directory import RunDirectory
from hpresil.launch.scrapes import Scrapes
from hpresil.launch.scribe import Scribe
from hpresil.launch.terminal import Terminal
from hpresil.membership import machine, messages as m, takeover
from hpresil.membership.client import Client
from hpresil.membership.server import Server
from hpresil.membership.state import State
from hpresil.telemetry.events import Event, last_events
from hpresil.telemetry.recorder import Recorder
from hpresil.telemetry.trace import TraceKeeper

log = logging.getLogger(__name__)
TAIL_BYTES = 1 << 18
"""Of the old coordinator's events: more than all agents say between two copies of the state."""
LOOK_S = 1.0
"""How often to look whether another coordinator has begun: nobody takes over in less than this."""


@dataclass(frozen=True)
class House:
    """What the coordinator's office stands on.

    Attributes:
        job: What to run.
        node: This node's name.
        directory: This node's run directory.
        socket: Where the coordinator listens on this node.
        picture: This agent's.
        terminal: Told of nodes that come and go.
        client: The agent's connection to the coordinator, wherever it is.
        facts: Returns how to reach this agent, for `hpresil status`.
        scrapes: Shows the job to Prometheus.
        traces: This agent's.
        failed: Called with the error of a coordinator that fails.
    """

    job: Job
    node: str
    directory: RunDirectory
    socket: Path
    picture: Picture
    terminal: Terminal
    client: Client
    facts: Callable[[], dict[str, Any]]
    scrapes: Scrapes
    traces: TraceKeeper
    failed: Callable[[BaseException], None]


class Hosting:
    """The coordinator while it lives on this node; and this agent's `Chronicle`, wherever it lives.

    Attributes:
        server: The coordinator, None while it lives elsewhere.
    """

    def __init__(self, house: House) -> None:
        self._h = house
        self.server: Server | None = None
        self.chronicle: Chronicle = Forwarded(house.client.say, house.picture)
        self._files: tuple[RunDirectory, Progress | None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._looked_at = 0.0
        self._known: State | None = None
        self._news = News()
        self._scribe = Scribe(self, house.picture, house.terminal, self._break_off)

    async def begin(self, resume: int | None) -> None:
        """Start the job's first coordinator; ``resume``: the version to resume from."""
        job, directory = self._h.job, self._h.directory
        generation = directory.earlier_generation() if resume is not None else 0
        settings = job.settings_at(
            self._h.node, directory.checkpoints, generation, resumed=resume is not None
        )
        state = machine.begin(settings, now())
        progress = Progress(
            directory, Recorder(job.record, resume or 0), self._h.picture, self._h.terminal.warn
        )
        self._files, self.chronicle = (directory, progress), progress
        self.server = server = Server(
            self._h.socket,
            state,
            journal_path=directory.journal,
            listen=job.cluster.listen() if job.cluster else None,
            on_state=self._changed,
            on_said=self._heard,
            on_lost=self._node_lost,
            refusals=self._h.picture.refusals,
        )
        await server.start()
        self._show(progress, server)
        self._watching = asyncio.create_task(self._watch(server))
        self.chronicle.event(
            "JobStarted",
            run_id=job.run_id,
            workers=job.workers,
            spares=job.spares,
            min_workers=job.min_workers,
            command=list(job.command),
        )
        if job.cluster is not None:
            place = whereabouts.Place(self._h.node, job.cluster.place, state.term)
            whereabouts.write(directory.job, place)

    async def take_over(self, copy: m.StateCopy, term: int, address: str, shift_s: float) -> Server:
        """Start the coordinator of ``term`` from a copy of the state; agents come in at ``address``.

        ``shift_s``: what to add to this machine's monotonic clock to have the one events are told by.
        """
        self._scribe.shift_s = shift_s
        state = self._known = takeover.rebased(machine.decode_state(copy.state), now() - copy.at)
        directory = self._h.directory.inherit()
        self._files = directory, None
        place = whereabouts.Place(self._h.node, address, term)
        self.server = Server(
            self._h.socket,
            state,
            taking_over=(self._h.node, term, copy),
            shift_s=shift_s,
            journal_path=directory.path / f"journal-{term}",
            on_begun=lambda: self._begun(directory, state, place),
            on_state=self._changed,
            on_said=self._heard,
            on_lost=self._node_lost,
            refusals=self._h.picture.refusals,
        )
        await self.server.start()
        self._watching = asyncio.create_task(self._watch(self.server))
        return self.server

    def _begun(self, directory: RunDirectory, state: State, place: whereabouts.Place) -> None:
        """Go on with the job's files, now that it is certain that the coordinator lives here."""
        assert self.server is not None
        whereabouts.write(directory.path, place)  # from here on the old one writes nothing
        heritage = Heritage(self._h.node, self._scribe.shift_s, last_events(directory.events, TAIL_BYTES))
        recorder = self._recorder(state, place.term)
        progress = Progress(directory, recorder, self._h.picture, self._h.terminal.warn, heritage)
        self._files, self.chronicle = (directory, progress), progress
        self._show(progress, self.server)
        directory.announce(self._h.facts())
        self._h.terminal.loud()
        self._h.terminal.say(
            f"node {place.node} has the coordinator now ({place.address}); node {state.host} had it"
        )
        self.chronicle.event("CoordinatorMoved", node=place.node, was=state.host, term=place.term)

    def _show(self, progress: Progress, server: Server) -> None:
        try:
            self._h.scrapes.open()
        except ConfigError as error:  # it has moved here, and the port is taken here
            self._h.terminal.say(f"no metrics: {error}")
        self._h.scrapes.show(progress, server, self._h.traces)

    async def _watch(self, server: Server) -> None:
        try:
            await server.failed()
        except Exception as error:
            self._h.failed(error)

    async def close(self) -> None:
        """End the coordinator here, if it lives here, and close the job's files."""
        if self._watching is not None:
            self._watching.cancel()
        if self.server is not None:
            server, self.server = self.server, None
            if self._deposed(server):
                self.chronicle = Forwarded(self._h.client.say, self._h.picture)
            await server.close()
        if self._files is not None:
            (directory, progress), self._files = self._files, None
            self.chronicle = Forwarded(self._h.client.say, self._h.picture)
            if progress is not None:
                progress.close()
            if directory is not self._h.directory:
                directory.close()

    def _recorder(self, state: State, term: int) -> Recorder:
        """Go on with the record; where its last lines were lost, begin another one."""
        path = self._h.job.record
        if path is None or not path.exists() or not path.stat().st_size:
            return Recorder(path, -1)
        try:
            return Recorder(path, max(1, state.newest))
        except DataError as error:
            other = path.with_name(f"{path.name}.{term}")
            self._h.terminal.say(f"the record goes on in {other}: {error}")
            return Recorder(other, -1)

    # ------------------------------------------------------------------ what happens in the job

    def _changed(self, state: State) -> None:
        """Write down what nobody says and follows from the coordinator's decisions."""
        known, self._known = self._known, None
        if known is not None:
            for node in known.nodes.keys() - state.nodes.keys():
                self._scribe.node_lost(known, node, "its agent has not come to the new coordinator")
        for event, fields, words in self._news.of(state):
            self.event(event, **fields)
            self._h.terminal.say(words)

    def _heard(self, node: str, message: m.FromAgent) -> None:
        """Write down what an agent says; this one writes directly, unless it said it before it could."""
        if self._h.job.cluster is None or (node == self._h.node and self._known is None):
            return
        if isinstance(message, m.AgentJoined) and message.term and self._known and node in self._known.nodes:
            self._scribe.knows(node, message)  # it comes from the coordinator before this one
        else:
            self._scribe.heard(node, message)

    def _node_lost(self, node: str, why: str) -> None:
        """Write down that another node is lost: the end of this agent's own connection is the job's."""
        state = self.server.state if self.server is not None else None
        if state is None or self._h.job.cluster is None or node == self._h.node:
            return
        if state.phase != "ended" and node not in state.drained_nodes:
            self._scribe.node_lost(state, node, why)

    def _break_off(self, broken: m.Broken) -> None:
        if self.server is not None:
            self.server.break_off(broken)

    # ------------------------------------------------------------------ this agent's chronicle

    @property
    def story(self) -> list[Event]:
        """The events of the last generations."""
        return self.chronicle.story

    def event(self, name: str, **fields: object) -> None:
        """Note an event."""
        self._of_now().event(name, **fields)

    def committed(self, worker: int, message: m.Committed) -> bool:
        """Take in a worker's commit; return whether it is the first of its step here."""
        return self._of_now().committed(worker, message)

    def logged(self, message: m.Logged) -> None:
        """Take in what a script logged."""
        self._of_now().logged(message)

    def _of_now(self) -> Chronicle:
        """Return where this agent writes: an old coordinator that wakes must not write beside the new one."""
        if self.server is not None and now() - self._looked_at > LOOK_S:
            self._looked_at = now()
            if self._deposed(self.server):
                self.chronicle = Forwarded(self._h.client.say, self._h.picture)
        return self.chronicle

    def _deposed(self, server: Server) -> bool:
        if self._files is None or self._h.job.cluster is None:
            return False
        place = whereabouts.read(self._files[0].path)
        return place is not None and place.term > server.term
