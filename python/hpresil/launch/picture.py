"""What the agent knows about its job, from the messages that pass through it. No sockets, no clock.

The coordinator decides; this is only for what the agent does itself: judging hangs, telling what
happened, and answering `hpresil status`."""

from __future__ import annotations

from dataclasses import dataclass, field

from hpresil.membership import messages as m
from hpresil.membership.refusals import Refusals


@dataclass
class Picture:
    """The job as seen by its agent.

    Attributes:
        members: The current view, by rank; a lost member stays in it until the next view.
        installed_at: When the view passed through, in monotonic seconds.
        reported: Members that have reported for this generation.
        decided: The generation of the last decision.
        slots: The slots each rank carries.
        copying: Members that the last decision has copy the state.
        step: The newest committed step, -1 before.
        commits: Commits of each live worker.
        holders: Live workers of this node that have committed or restored.
        sources: Members of any node that had the state when the last decision was made.
        ready: Live workers that have said `Ready`; ``warm`` those that made a dry step.
        refusals: What was turned away at the sockets of this node.
        released: Workers that were told to leave; ``stopped`` those that were told so because of an error.
    """

    generation: int = 0
    members: tuple[int, ...] = ()
    installed_at: float = 0.0
    reported: set[int] = field(default_factory=set)
    decided: int = 0
    slots: list[list[int]] = field(default_factory=list)
    copying: tuple[int, ...] = ()
    step: int = -1
    commits: dict[int, int] = field(default_factory=dict)
    holders: set[int] = field(default_factory=set)
    sources: set[int] = field(default_factory=set)
    ready: set[int] = field(default_factory=set)
    warm: set[int] = field(default_factory=set)
    released: set[int] = field(default_factory=set)
    stopped: set[int] = field(default_factory=set)
    refusals: Refusals = field(default_factory=Refusals)
    _completed: dict[int, set[int]] = field(default_factory=dict)

    def view(self, view: m.View, now: float) -> bool:
        """Take in a view; return whether it is new."""
        if view.generation <= self.generation:
            return False
        self.generation, self.members, self.installed_at = view.generation, tuple(view.members), now
        self.reported = set()
        self.holders.intersection_update(view.members)
        self.sources.intersection_update(view.members)
        self._completed = {}
        return True

    def decision(self, decision: m.Decision) -> bool:
        """Take in a decision; return whether it is new."""
        if decision.generation <= self.decided:
            return False
        self.decided, self.slots = decision.generation, decision.slots
        self.copying = tuple(decision.sources)
        self.sources = set(self.members) - set(self.copying)
        return True

    def committed(self, worker: int, message: m.Committed) -> bool:
        """Take in a commit; return whether all members of its generation have now committed that step."""
        self.commits[worker] = self.commits.get(worker, 0) + 1
        self.holders.add(worker)
        self.step = max(self.step, message.step)
        if message.generation != self.generation or worker not in self.members:
            return False
        done = self._completed.setdefault(message.step, set())
        done.add(worker)
        if len(done) < len(self.members):
            return False
        for step in [step for step in self._completed if step <= message.step]:
            del self._completed[step]
        return True

    def ready_said(self, worker: int, message: m.Ready) -> None:
        """Take in that a worker reached its loop."""
        self.ready.add(worker)
        if not message.pristine:
            self.warm.add(worker)
        if message.version >= 0:
            self.holders.add(worker)

    def lost(self, worker: int) -> None:
        """Forget a worker that is gone."""
        for known in (self.holders, self.sources, self.ready, self.warm):
            known.discard(worker)
        self.commits.pop(worker, None)

    def rank(self, worker: int) -> int:
        """Return its rank, -1 if it has none."""
        return self.members.index(worker) if worker in self.members else -1

    def name(self, worker: int) -> str:
        """Return how messages call a worker."""
        rank = self.rank(worker)
        return f"worker {worker}" if rank < 0 else f"worker {worker} (rank {rank})"
