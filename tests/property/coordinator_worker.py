"""A worker that follows the step contract, reduced to what the coordinator sees of it.

It takes one message or makes one step of progress at a time, when the world says so.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from hpresil.membership import messages as m

FACTS = {"config.slots": "5"}


@dataclass
class Plan:
    """What happens to the job.

    Attributes:
        kills: Workers that die; the moment is random.
        stops: Workers that answer nothing any more, until the agent kills them.
        discards: States that are spoiled after a commit.
        bad_copies: Copies of the state that fail.
        lost_groups: Groups that fail for no reason.
        drain: Somebody asks the job to end.
        nodes: How many there are; ``node_losses``: how many of them are lost.
        returns: Nodes that are lost, drained or sent away and come again.
        cuts: Nodes that come again and are not reached by all others.
        drains: Wishes to drain a node; ``resizes``: wishes for another size.
        haste: The chance of one of these before each move.
    """

    workers: int = 2
    spares: int = 1
    min_workers: int = 1
    steps: int = 3
    kills: int = 0
    stops: int = 0
    discards: int = 0
    bad_copies: int = 0
    lost_groups: int = 0
    drain: bool = False
    nodes: int = 1
    places: int = 0
    node_losses: int = 0
    returns: int = 0
    cuts: int = 0
    drains: int = 0
    resizes: int = 0
    restarts: int = 100
    haste: float = 0.03

    def __post_init__(self) -> None:
        faults = self.kills + self.stops + self.discards + self.bad_copies + self.lost_groups
        self._faults = faults + self.node_losses + self.cuts

    def faultless(self) -> bool:
        """Whether nothing goes wrong: people only change their minds."""
        return not self._faults


@dataclass
class Job:
    """What all workers of a job share; it stands for what they tell each other in collectives.

    Attributes:
        decisions: By generation.
        entered: Who takes part in the reduction of (generation, version).
        votes: Who has voted there, and whether with the wishes to leave and to hand over.
    """

    plan: Plan
    random: random.Random
    decisions: dict[int, m.Decision] = field(default_factory=dict)
    entered: dict[tuple[int, int], set[int]] = field(default_factory=dict)
    votes: dict[tuple[int, int], dict[int, tuple[bool, bool]]] = field(default_factory=dict)


@dataclass
class Worker:
    """The worker's side of the step contract, reduced to what the coordinator sees."""

    id: int
    job: Job
    node: str = "a"
    inbox: deque[m.ToWorker] = field(default_factory=deque)
    outbox: deque[m.FromWorker] = field(default_factory=deque)
    alive: bool = True
    stuck: bool = False
    version: int = -1
    phase: str = "empty"
    installed: int = 0
    promised: int = 0
    decided: int = 0
    members: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    wish: bool = False
    hand_over: int = 0
    handing: bool = False
    handed: int = 0
    finished: bool = False
    rolling: bool = False
    leaving: bool = False
    released: bool = False

    def say(self, message: m.FromWorker) -> None:
        self.outbox.append(message)

    def report(self) -> None:
        self.promised = self.installed
        self.say(
            m.Report(
                generation=self.promised,
                version=self.version,
                phase=self.phase,
                kept=list(self.slots),
                done=self.slots[:1],
                finished=self.finished,
            )
        )

    def receives(self, message: m.ToWorker) -> None:
        match message:
            case m.View():
                assert message.generation > self.installed
                self.installed, self.members = message.generation, message.members
                if self.id in message.members and self.phase != "applied":
                    self.report()
                elif self.id not in message.members:
                    assert self.phase not in ("applied", "holding"), "left out in the middle of a step"
                    self.version, self.phase, self.slots = -1, "empty", []
            case m.StandBy():
                assert self.version < 0, "a worker with state was told to make a dry step"
                self.say(m.Ready(facts=FACTS, pristine=False))
            case m.Decision() if message.generation == self.installed:
                self._obey(message)
            case m.Serve() if message.generation == self.installed and self.version >= 0:
                if self.version == message.version and not self.rolling:
                    served = m.Served(
                        generation=message.generation, version=self.version, frame=0, frame_bytes=1
                    )
                    self.say(served)
                else:
                    self.inbox.append(message)
            case m.StateReady() if message.generation == self.installed and self.phase == "empty":
                if self.decided < message.generation:
                    self.inbox.append(message)
                else:
                    self._copy(message)
            case m.Drain():
                self.wish = True
            case m.HandOver():
                self.hand_over = message.generation
            case m.Save():
                error = "" if self.version >= 0 else "no state"
                self.say(m.Saved(version=self.version, path=f"/saved/{self.version}", error=error))
            case m.Release() | m.Stop():
                self.released = True

    def _copy(self, ready: m.StateReady) -> None:
        if self.job.plan.bad_copies > 0 and self.job.random.random() < 0.5:
            self.job.plan.bad_copies -= 1
            self.say(m.RestoreFailed(generation=ready.generation, frame=0, error="checksum"))
            return
        self.version, self.phase = ready.version, "computing"
        self.say(m.Restored(generation=ready.generation, version=ready.version, state_bytes=1))
        self._maybe_finish()

    def _obey(self, decision: m.Decision) -> None:
        rank = self.members.index(self.id)
        self.decided = decision.generation
        self.slots = list(decision.slots[rank])
        if self.id in decision.sources:
            assert self.phase == "empty", f"worker {self.id} has version {self.version} and is told to copy"
            self.finished = False
        elif self.id in decision.roll:
            assert (self.phase, self.version) == ("holding", decision.target - 1)
            self.phase, self.rolling = "applied", True
        elif decision.initial and rank == 0:
            self.version, self.phase = 0, "computing"
        else:
            assert self.version == decision.target, (
                f"worker {self.id}: {self.version} is not {decision.target}"
            )
            self.phase = "computing"
        if decision.finished and self.version == decision.target and self.phase == "computing":
            self._finish()

    def can_progress(self) -> bool:
        if self.released or self.phase == "empty" or self.finished:
            return False
        if self.phase == "applied":
            return True
        if self.handed == self.decided:
            return False
        place = (self.decided, self.version)
        if self.id not in self.members or self.decided != self.installed or self.promised > self.decided:
            return False
        if self.phase == "holding":
            return set(self.job.votes.get(place, {})) >= set(self.members)
        entered = self.job.entered.get(place, set())
        return self.id not in entered or entered >= set(self.members)

    def progress(self) -> None:
        place = (self.decided, self.version)
        if self.phase == "computing":
            entered = self.job.entered.setdefault(place, set())
            if self.id not in entered:
                entered.add(self.id)
                return
            self.phase = "holding"
            wishes = (self.wish, self.hand_over == self.decided)
            self.job.votes.setdefault(place, {})[self.id] = wishes
        elif self.phase == "holding":
            self.phase = "applied"
            votes = self.job.votes[place].values()
            if any(leave for leave, _ in votes):
                self.wish = self.leaving = True
            self.handing = any(hand_over for _, hand_over in votes)
        else:
            self._end_of_block()

    def _end_of_block(self) -> None:
        step = self.version
        if self.job.plan.discards > 0 and self.job.random.random() < 0.2:
            self.job.plan.discards -= 1
            self.version, self.phase, self.leaving, self.rolling, self.slots = -1, "empty", False, False, []
            self.handing = False
            self.say(m.StateDiscarded(step=step, error="x", traceback="x"))
            if self.installed > self.promised and self.id in self.members:
                self.report()
            return
        self.version, self.phase, self.rolling, self.slots = step + 1, "computing", False, []
        said = {"loss": "", "grad_norm": "", "samples": "", "state": ""}
        self.say(m.Committed(generation=self.decided, step=step, world_size=len(self.members), **said))
        if self.handing:
            self.handing, self.handed = False, self.decided
            self.say(m.HandedOver(generation=self.decided, version=self.version))
        decision = self.job.decisions.get(self.decided)
        ends = decision is not None and decision.finished and decision.target == self.version
        if self.leaving or ends:
            self._finish()
        else:
            self._maybe_finish()
        if self.installed > self.promised and self.id in self.members:
            self.report()

    def _maybe_finish(self) -> None:
        decision = self.job.decisions.get(self.decided)
        ends = decision is not None and decision.finished and decision.target == self.version
        if self.version >= self.job.plan.steps or ends:
            self._finish()

    def _finish(self) -> None:
        self.finished = True
        self.say(m.Finished(generation=self.decided, version=self.version, drained=self.wish))
