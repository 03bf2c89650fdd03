"""What the agent does with every message: from a worker, and from the coordinator.

Most messages only pass through. On the way the agent does its own part: it writes commits down, raises the
generation in the members' pages *before* it hands out a view, lets frames be filled and read, and starts and
kills processes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hpresil.base.deadline import now
from hpresil.base.errors import DataError, Divergence
from hpresil.launch.control import Control
from hpresil.launch.failures import Failures
from hpresil.launch.frame_traffic import FrameTraffic
from hpresil.launch.links import Links
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Chronicle
from hpresil.launch.terminal import Terminal
from hpresil.launch.workers import WorkerProcess, Workers
from hpresil.membership import messages as m
from hpresil.membership.client import Client

LOCAL = m.Footprint | m.Served
"""What a worker says to its agent only."""


@dataclass(frozen=True)
class Hands:
    """What the conversation acts on."""

    node: str
    workers: Workers
    links: Links
    client: Client
    frames: FrameTraffic
    picture: Picture
    progress: Chronicle
    failures: Failures
    terminal: Terminal
    start_worker: Callable[[m.StartWorker], None]
    end_worker: Callable[[int, str], None]
    end: Callable[[m.JobEnded], None]
    probe: Callable[[m.Probe], None]
    snapshot_every: int
    shown: frozenset[int] | None


class Conversation:
    """Handles the messages of one job."""

    def __init__(self, hands: Hands) -> None:
        self._h = hands
        self.control = Control(hands.node, hands.client.say)
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
                self._h.frames.footprint(message)
            case m.Served():
                self._h.frames.served(worker, message)
            case m.ServeFailed():
                self._h.frames.serve_failed(worker, message.generation, message.frame)
            case m.Restored():
                self._restored(worker, message)
            case m.RestoreFailed():
                self._h.frames.restore_failed(worker, message)
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
        except DataError as error:
            self.stop(str(error), worker, message.step, sound=True)
            return
        except (Divergence, ValueError) as error:
            self.stop(f"{type(error).__name__}: {error}", worker, message.step)
            return
        if message.generation == h.picture.generation:
            h.workers.calm.committed(worker)
        every = h.snapshot_every
        if first and every and (message.step + 1) % every == 0:
            h.frames.committed(message, worker)

    def _restored(self, worker: int, message: m.Restored) -> None:
        self._h.picture.holders.add(worker)
        self._h.progress.event(
            "Restored",
            generation=message.generation,
            worker=worker,
            version=message.version,
            bytes=message.state_bytes,
        )
        self._h.frames.restored(worker)

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
            case m.Roster():
                self._h.frames.roster(message)
            case m.Probe():
                self._h.probe(message)
            case m.Answered():
                self.control.answered(message)
            case m.Rejected():
                self._end(m.JobEnded(status=1, reason=f"this node is not taken in: {message.reason}"))
            case m.Dismissed():
                self._h.terminal.warn(message.reason)
                self._end(m.JobEnded(status=0, reason=message.reason))
            case m.JobEnded():
                self._end(message)

    def _end(self, ended: m.JobEnded) -> None:
        self.control.over(f"the job has ended: {ended.reason}")
        self._h.end(ended)

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
                worker = self._h.workers.get(to)
                if worker is not None:
                    worker.may_leave = True
            case m.Stop():
                self._h.picture.stopped.add(to)
        self._h.links.send(to, what)

    def _installed(self, view: m.View) -> None:
        h = self._h
        for member in view.members:
            worker = h.workers.get(member)
            if worker is not None:
                worker.page.set_generation(view.generation)
        h.workers.calm.view(w.id for w in h.workers.live() if w.id in view.members)
        h.frames.view()
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
        new = h.picture.decision(decision)
        if new:
            h.progress.event(
                "Decided",
                generation=decision.generation,
                target=decision.target,
                sources=decision.sources,
                slots=decision.slots,
                initial=decision.initial,
                finished=decision.finished,
            )
        h.frames.decision(to, decision, new=new)

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
        self._h.picture.lost(worker.id)
        if self._h.frames.gone(worker.id):
            worker.aside_later = False
        elif not worker.aside_later:
            self._h.workers.calm.step_aside(worker.pid)

    def reaped(self, worker: WorkerProcess) -> None:
        """The kernel has finished with a worker."""
        self._h.frames.reaped(worker.id)

    def stop(self, reason: str, worker: int = -1, step: int = -1, *, sound: bool = False) -> None:
        """End the job for a reason that the coordinator does not know; ``sound``: save the state first."""
        self._h.client.say(m.Broken(reason=reason, worker=worker, step=step, sound=sound))
