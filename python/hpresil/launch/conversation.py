"""What the agent does with every message: from a worker, and from the coordinator.

Most messages only pass through. On the way the agent does its own part: it writes commits down, raises the
generation in the members' pages *before* it hands out a view, lets frames be filled and read, and starts and
kills processes. A message about state (`Serve`, `StateReady`) never overtakes the decision it follows from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hpresil.base import spans
from hpresil.base.deadline import now
from hpresil.base.errors import ConfigError, DataError, Divergence
from hpresil.launch.arena import Action, FrameBook, Serve
from hpresil.launch.failures import Failures
from hpresil.launch.links import Links
from hpresil.launch.memory import Arenas
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Progress
from hpresil.launch.terminal import Terminal
from hpresil.launch.workers import WorkerProcess, Workers
from hpresil.membership import messages as m
from hpresil.membership.client import Client

LOCAL = m.Logged | m.Footprint | m.Served
"""What a worker says to its agent only."""


@dataclass(frozen=True)
class Hands:
    """What the conversation acts on."""

    workers: Workers
    links: Links
    client: Client
    arenas: Arenas
    picture: Picture
    progress: Progress
    failures: Failures
    terminal: Terminal
    start_worker: Callable[[m.StartWorker], None]
    end_worker: Callable[[int, str], None]
    end: Callable[[m.JobEnded], None]
    snapshot_every: int
    shown: frozenset[int] | None


class Conversation:
    """Handles the messages of one job."""

    def __init__(self, hands: Hands) -> None:
        self._h = hands
        self._book = FrameBook(len(hands.arenas.fds))
        self._told: set[int] = set()  # members that have been sent the decision of this generation
        self._held_back: dict[int, list[m.ToWorker]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._followed: set[int] = set()

    # ------------------------------------------------------------------ workers

    def said(self, worker: int, message: m.FromWorker) -> None:
        """Take a message of a live worker."""
        match message:
            case m.Committed():
                self._committed(worker, message)
            case m.Logged():
                self._h.progress.logged(message)
            case m.Footprint():
                self._later(self._grow(message.frame_bytes))
            case m.Served():
                self._served(worker, message)
            case m.ServeFailed():
                self._perform(self._book.serve_failed(worker, message.generation, message.frame))
            case m.Restored():
                self._restored(worker, message)
            case m.RestoreFailed():
                self._restore_failed(worker, message)
            case _:
                self._noted(worker, message)
        if not isinstance(message, LOCAL):
            self._h.client.say(m.Relayed(worker=worker, said=message))

    def _noted(self, worker: int, message: m.FromWorker) -> None:
        h = self._h
        match message:
            case m.Ready():
                h.picture.ready_said(worker, message)
                h.progress.event("WorkerReady", worker=worker, pristine=message.pristine)
            case m.Report():
                if message.generation == h.picture.generation:
                    h.picture.reported.add(worker)
            case m.GroupBuilt():
                h.progress.event("GroupBuilt", generation=message.generation, worker=worker)
            case m.SlotFailed():
                fields = {"step": message.step, "slot": message.slot, "kind": message.kind}
                h.progress.event(
                    "SlotFailed", worker=worker, error=message.error, retry=message.retry, **fields
                )
                h.failures.slot_failed(worker, message)
            case m.StateDiscarded():
                h.picture.holders.discard(worker)
                h.terminal.say(f"{h.picture.name(worker)} copies its state anew: {message.error}")
            case m.Saved():
                h.progress.event(
                    "Saved", worker=worker, version=message.version, path=message.path, error=message.error
                )

    def _committed(self, worker: int, message: m.Committed) -> None:
        h = self._h
        try:
            first = h.progress.committed(worker, message)
        except (Divergence, DataError, ValueError) as error:
            self.stop(f"{type(error).__name__}: {error}", worker, message.step)
            return
        every = h.snapshot_every
        if first and every and (message.step + 1) % every == 0:
            self._perform(self._book.snapshot(message.generation, message.step + 1, worker))

    def _served(self, worker: int, message: m.Served) -> None:
        newest, actions = self._book.served(worker, message.generation, message.version, message.frame)
        if newest:
            self._h.client.say(m.FrameSealed(version=message.version, frame=message.frame))
            self._h.progress.event(
                "FrameSealed",
                version=message.version,
                frame=message.frame,
                frame_bytes=message.frame_bytes,
                worker=worker,
            )
        self._perform(actions)

    def _restored(self, worker: int, message: m.Restored) -> None:
        self._h.picture.holders.add(worker)
        self._h.progress.event(
            "Restored",
            generation=message.generation,
            worker=worker,
            version=message.version,
            bytes=message.state_bytes,
        )
        self._perform(self._book.read_done(worker))

    def _restore_failed(self, worker: int, message: m.RestoreFailed) -> None:
        before = self._book.newest
        self._perform(self._book.read_failed(worker, message.frame))
        if before is not None and self._book.newest is None:
            self._h.client.say(m.FrameSealed(version=-1, frame=-1))
        self._h.terminal.say(f"{self._h.picture.name(worker)} could not copy the state: {message.error}")

    async def _grow(self, frame_bytes: int) -> None:
        begin_ns = spans.clock()
        try:
            grown = await self._h.arenas.grow(frame_bytes)
            spans.add("grow frames", begin_ns, value=frame_bytes)
        except ConfigError as error:
            self.stop(str(error))
            return
        if grown:
            self._perform(self._book.grown(True))

    # ------------------------------------------------------------------ the coordinator

    def told(self, message: m.ToAgent) -> None:
        """Take a message of the coordinator."""
        match message:
            case m.Deliver():
                self._deliver(message.to, message.what)
            case m.StartWorker():
                self._h.start_worker(message)
            case m.FenceWorker():
                self._h.end_worker(message.worker, message.why)
            case m.JobEnded():
                self._h.end(message)

    def _deliver(self, to: int, what: m.ToWorker) -> None:
        match what:
            case m.View():
                if self._h.picture.view(what, now()):
                    self._installed(what)
            case m.Decision():
                self._decided(to, what)
                return
            case m.Release():
                self._h.picture.released.add(to)
            case m.Stop():
                self._h.picture.stopped.add(to)
        self._h.links.send(to, what)

    def _installed(self, view: m.View) -> None:
        h = self._h
        for member in view.members:
            worker = h.workers.get(member)
            if worker is not None:
                worker.page.set_generation(view.generation)
        self._told, self._held_back = set(), {}
        h.progress.event("ViewInstalled", generation=view.generation, members=view.members)
        ranks = ", ".join(f"worker {w} is rank {r}" for r, w in enumerate(view.members))
        h.terminal.say(f"generation {view.generation}: {ranks}")
        if h.shown is None:
            self._follow(view.members[0])

    def _follow(self, worker: int) -> None:
        found = self._h.workers.get(worker)
        if worker in self._followed or found is None:
            return
        for old in self._followed:
            self._h.terminal.unfollow(old)
        self._h.terminal.follow(worker, found.log, from_start=not self._followed)
        self._followed = {worker}

    def _decided(self, to: int, decision: m.Decision) -> None:
        h = self._h
        actions: list[Action] = []
        if h.picture.decision(decision):
            h.progress.event(
                "Decided",
                generation=decision.generation,
                target=decision.target,
                sources=decision.sources,
                slots=decision.slots,
                initial=decision.initial,
                finished=decision.finished,
            )
            actions = self._book.decided(
                decision.generation, decision.target, decision.sources, initial=decision.initial
            )
        h.links.send(to, decision)
        self._told.add(to)
        for message in self._held_back.pop(to, []):
            h.links.send(to, message)
        self._perform(actions)

    # ------------------------------------------------------------------ frames

    def _perform(self, actions: list[Action]) -> None:
        for action in actions:
            message: m.ToWorker
            if isinstance(action, Serve):
                message = m.Serve(generation=action.generation, version=action.version, frame=action.frame)
            else:
                message = m.StateReady(
                    generation=action.generation, version=action.version, frame=action.frame
                )
            if action.worker in self._told:
                self._h.links.send(action.worker, message)
            else:
                self._held_back.setdefault(action.worker, []).append(message)

    # ------------------------------------------------------------------ losses

    def started(self, worker: WorkerProcess) -> None:
        """A process was started: tell the coordinator."""
        h = self._h
        h.failures.started(worker)
        if h.shown is not None and worker.index in h.shown:
            h.terminal.follow(worker.id, worker.log, from_start=True)
        elif h.shown is None and worker.index == 0 and not self._followed:
            self._follow(worker.id)

    def gone(self, worker: WorkerProcess) -> None:
        """A worker is gone: nothing waits for it any more."""
        self._h.links.drop(worker.id)
        self._held_back.pop(worker.id, None)
        self._h.picture.lost(worker.id)
        self._perform(self._book.lost(worker.id))

    def reaped(self, worker: WorkerProcess) -> None:
        """The kernel has finished with a worker."""
        self._perform(self._book.reaped(worker.id))

    def stop(self, reason: str, worker: int = -1, step: int = -1) -> None:
        """End the job for a reason that the coordinator does not know."""
        for live in self._h.workers.live():
            self._deliver(live.id, m.Stop(reason=reason))
        self._h.end(m.JobEnded(status=1, reason=reason, worker=worker, step=step))

    async def close(self) -> None:
        """Give up what is under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _later(self, work: asyncio._CoroutineLike[None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
