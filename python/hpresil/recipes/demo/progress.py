"""What the demo shows of a running job, kept up to date from its happenings. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hpresil.elastic.slots import regular
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

WINDOW = 10  # steps over which the speed is taken


@dataclass
class Progress:
    """The state of one job as a spectator sees it.

    Attributes:
        slots: Slots of a step.
        tokens: Tokens of a step.
    """

    slots: int
    tokens: int
    step: int = -1
    loss: float = float("nan")
    generation: int = 0
    members: list[int] = field(default_factory=list)
    others: dict[int, str] = field(default_factory=dict)
    """Workers that are not members, and their state."""

    def __post_init__(self) -> None:
        self._times: deque[float] = deque(maxlen=WINDOW + 1)
        self._of_last_step = 0

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second over the last steps; 0 before the second step."""
        elapsed = self._times[-1] - self._times[0] if self._times else 0.0
        return self.tokens * (len(self._times) - 1) / elapsed if elapsed > 0 else 0.0

    def carried(self) -> list[list[int]]:
        """Return the slots each rank carries in an ordinary step."""
        return regular(self.slots, len(self.members)) if self.members else []

    def observe(self, seen: Happening) -> str:
        """Take in what happened; return one line about it, empty for an ordinary step."""
        match seen:
            case Joined():
                return f"node {seen.node} joined"
            case Started():
                self.others[seen.worker] = "starting"
                return f"worker {seen.worker} started"
            case StoodBy():
                self.others[seen.worker] = "spare, ready"
                return f"worker {seen.worker} is a spare now: model built, one dry step done"
            case Lost():
                self.others.pop(seen.worker, None)
                return f"worker {seen.worker} is lost: {seen.reason}"
            case Viewed():
                return self._viewed(seen)
            case StepCommitted():
                return self._committed(seen)
            case Ended():
                return f"the job ended with status {seen.status}: {seen.reason}"

    def _viewed(self, view: Viewed) -> str:
        before, after = set(self.members), set(view.members)
        for worker in view.members:
            self.others.pop(worker, None)
        old_size, self.members, self.generation = len(before), view.members, view.generation
        came = " and ".join(str(worker) for worker in sorted(after - before))
        if not before:
            what = f"formed with workers {', '.join(map(str, view.members))}"
        elif len(view.members) < old_size:
            what = "no spare is ready: the group shrinks, its slots move"
        elif len(view.members) > old_size:
            what = f"the group grows: worker {came} joins"
        else:
            what = f"worker {came} takes over"
        return f"generation {view.generation}: {what}"

    def _committed(self, step: StepCommitted) -> str:
        recovered = self.step >= 0 and step.generation != self._of_last_step
        self.step, self.loss, self._of_last_step = step.step, step.loss, step.generation
        self._times.append(step.time)
        return f"step {step.step} committed by {step.world_size} workers" if recovered else ""
