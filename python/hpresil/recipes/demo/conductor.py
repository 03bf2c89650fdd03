"""Decides when the demo harms which worker: a pure machine of (what happened, now) -> acts.

The story, each part begun by what was *seen*, never by a timer:

1. *warming*: the group is whole, a spare is ready and ``first_fault_at`` steps are committed: kill
   one worker. The spare takes its rank.
2. *replaced*: the group is whole again and has committed ``calm_steps`` steps: stop another worker,
   so that it hangs. The replacement of the first victim would be the next spare; it is held back
   (SIGSTOP while it starts), so no spare is ready and the group has to shrink.
3. *shrunk*: let go of what was held; it joins and the group grows.
4. *grown*: ``calm_steps`` steps of the whole group later: with several nodes, kill the agent of one, and all
   its workers with it.
5. *node lost*: the node comes back, and the group is whole again.
6. *whole*: ``calm_steps`` steps of the whole group later, and not before ``steps`` in all: drain.

Every part has a deadline; past it the machine names the problem and drains, so the demo ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, assert_never

from hpresil.recipes.demo.happenings import (
    Ended,
    Happening,
    Joined,
    Lost,
    Started,
    StepCommitted,
    StoodBy,
    Viewed,
)

Deed = Literal["kill", "stop", "hold", "let_go", "lose_node", "drain"]


class Part(Enum):
    """Where the story is."""

    WARMING = "until the group is whole and a spare is ready"
    REPLACED = "until the spare has taken the killed worker's rank"
    HUNG = "until the hung worker is noticed and the group shrinks"
    SHRUNK = "until a new worker has joined and the group has grown back"
    GROWN = "until the whole group has trained on"
    NODE_LOST = "until the lost node is back and the group is whole"
    WHOLE = "until the whole group has trained on once more"
    DRAINING = "until the job has ended"
    OVER = ""


@dataclass(frozen=True)
class Act:
    """What the demo's hands have to do now; ``pid`` is 0 for the job as a whole."""

    deed: Deed
    pid: int
    worker: int
    why: str


@dataclass(frozen=True, kw_only=True)
class Script:
    """The story's numbers.

    Attributes:
        workers: Size of the whole group.
        nodes: How many nodes the job has.
        steps: Do not end before so many steps are committed.
        first_fault_at: Steps before the first fault.
        calm_steps: Steps of the whole group between one recovery and the next fault.
        part_timeout_s: Longest time of one part.
    """

    workers: int = 3
    nodes: int = 1
    steps: int = 30
    first_fault_at: int = 8
    calm_steps: int = 5
    part_timeout_s: float = 90.0


@dataclass
class Conductor:
    """The machine; feed it every happening in order, then `tick` it now and then."""

    script: Script
    now: float
    part: Part = Part.WARMING
    problem: str = ""
    faults: dict[str, tuple[int, float]] = field(default_factory=dict)
    """What was done: "killed", "hung" and "node lost" to (worker, time); of a node one of its workers."""

    def __post_init__(self) -> None:
        self._pids: dict[int, int] = {}
        self._members: list[int] = []
        self._nodes: dict[int, str] = {}
        self._agents: dict[str, int] = {}
        self._spares: set[int] = set()
        self._held: set[int] = set()
        self._generation = 0
        self._calm = 0
        self._steps = 0
        self._since = self.now

    def observe(self, seen: Happening, now: float) -> list[Act]:
        """Take in what happened and return what to do about it."""
        match seen:
            case Joined():
                self._agents[seen.node] = seen.pid
            case Started():
                self._pids[seen.worker], self._nodes[seen.worker] = seen.pid, seen.node
                return self._hold(seen.worker)
            case StoodBy():
                self._spares.add(seen.worker)
            case Lost():
                self._spares.discard(seen.worker)
                self._held.discard(seen.worker)
            case Viewed():
                return self._viewed(seen, now)
            case StepCommitted():
                return self._committed(seen, now)
            case Ended():
                if self.part is not Part.DRAINING:
                    self.problem = self.problem or f"the job ended early: {seen.reason}"
                self._enter(Part.OVER, now)
            case _:
                assert_never(seen)
        return []

    def tick(self, now: float) -> list[Act]:
        """Return what the passing of time asks for: the end, once a part is overdue."""
        if self.part in (Part.DRAINING, Part.OVER) or now - self._since <= self.script.part_timeout_s:
            return []
        return self._give_up(f"waited {self.script.part_timeout_s:g} s {self.part.value}, in vain", now)

    def _enter(self, part: Part, now: float) -> None:
        self.part, self._since, self._calm = part, now, 0

    def _give_up(self, problem: str, now: float) -> list[Act]:
        self.problem = self.problem or problem
        acts = self._let_go("the demo gives up")
        return [*acts, *self._drain(problem, now)]

    def _drain(self, why: str, now: float) -> list[Act]:
        self._enter(Part.DRAINING, now)
        return [Act("drain", 0, -1, why)]

    def _hold(self, worker: int) -> list[Act]:
        if self.part not in (Part.REPLACED, Part.HUNG):
            return []
        self._held.add(worker)
        return [Act("hold", self._pids[worker], worker, "held back, so that no spare is ready")]

    def _let_go(self, why: str) -> list[Act]:
        acts = [Act("let_go", self._pids[worker], worker, why) for worker in sorted(self._held)]
        self._held.clear()
        return acts

    def _viewed(self, view: Viewed, now: float) -> list[Act]:
        newcomers = set(view.members) - set(self._members)
        self._spares -= newcomers
        self._members, self._generation, self._calm = view.members, view.generation, 0
        whole = len(view.members) == self.script.workers
        if self.part is Part.HUNG and whole and newcomers:
            return self._give_up("a spare took the hung worker's rank; the group did not shrink", now)
        if self.part is Part.HUNG and not whole:
            self._enter(Part.SHRUNK, now)
            return self._let_go("the group has shrunk; the replacement may come")
        if self.part is Part.SHRUNK and whole:
            self._enter(Part.GROWN, now)
        if self.part is Part.NODE_LOST and whole and any(self._nodes[m] for m in newcomers):
            self._enter(Part.WHOLE, now)
        return []

    def _committed(self, step: StepCommitted, now: float) -> list[Act]:
        self._steps = step.step + 1
        if step.generation != self._generation or step.world_size != self.script.workers:
            return []
        self._calm += 1
        if self.part is Part.WARMING and self._steps >= self.script.first_fault_at and self._spares:
            return self._harm("killed", self._members[1], now)
        calm = self._calm >= self.script.calm_steps
        if self.part is Part.REPLACED and calm and not self._spares:
            return self._harm("hung", self._members[-1], now)
        if self.part is Part.GROWN and calm and self.script.nodes > 1:
            return self._lose_node(now)
        if self.part in (Part.GROWN, Part.WHOLE) and calm and self._steps >= self.script.steps:
            return self._drain("the group is whole again and has trained on", now)
        return []

    def _harm(self, kind: Literal["killed", "hung"], worker: int, now: float) -> list[Act]:
        self.faults[kind] = (worker, now)
        self._enter(Part.REPLACED if kind == "killed" else Part.HUNG, now)
        deed: Deed = "kill" if kind == "killed" else "stop"
        return [Act(deed, self._pids[worker], worker, f"rank {self._members.index(worker)}")]

    def _lose_node(self, now: float) -> list[Act]:
        """Kill the agent of another node that has a member."""
        worker = next((member for member in self._members if self._nodes[member]), None)
        if worker is None:
            return self._give_up("no member is on another node than the coordinator's", now)
        node = self._nodes[worker]
        self.faults["node lost"] = (worker, now)
        self._enter(Part.NODE_LOST, now)
        return [Act("lose_node", self._agents[node], worker, f"node {node}")]
