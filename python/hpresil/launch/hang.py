"""Which worker hangs, decided from the liveness pages alone.

The problem: a worker that stops making progress holds up everybody, and everybody that waits for it looks
just as idle. Killing the wrong one costs a recovery; killing the last copy of the state costs the job.

The rule (pure: pages and the time are arguments):

* A worker is judged by the age of its last stamp, per phase. It is armed inside a step, after three commits
  of its own: until then the limit is three times the longest limit of the armed others (a newcomer's first
  steps are like theirs), and nobody is judged while no one is armed.
* The limit of a phase is the larger of ``min_s`` and ten times the longest time between two stamps among the
  last 64 seen in that phase. User code after ``apply`` ("tail") and between steps ("outside") has the long
  limit ``outside_s``. A newcomer that copies state has ten times ``min_s`` and two seconds per gigabyte.
* "waiting" is never a fault by itself: the one to blame is who has not entered what the others wait in.
  "paused", "standby" and "done" are never judged either.
* A member that the kernel says is stopped (SIGSTOP) for ``min_s`` is blamed in every phase but "paused".
* A member that has not reported for an installed generation is blamed after its phase's limit.
* An observation made by a late tick is dropped, and ages are counted from it: what stopped the agent
  probably stopped the workers too.
* Only members are judged: a spare holds up nobody.
* The last worker that holds state is spared, and if all members of a node are suspected at once the
  environment is to blame and all are: they are reported. ``outside_s`` after its limit nobody is spared
  any more: the job then goes on from what else there is, a snapshot or a checkpoint, instead of standing
  still for ever.

It does not find a live-lock (a worker that stamps for ever without a commit).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from hpresil.launch import standstill

LATE_TICK_S = 0.5
ARMED_COMMITS = 3
FACTOR = 10.0
WINDOW = 64
YOUNG_FACTOR = 3.0
RESTORE_BYTES_PER_S = 0.5e9
UNJUDGED = frozenset({"waiting", "paused", "standby", "done"})
SELF_REPORTING = frozenset({"applying", "tail", "paused"})
"""Phases in which a member may owe its report until the end of its block."""


@dataclass(frozen=True)
class Observed:
    """What is known about one live worker at one tick; times are monotonic seconds.

    ``owes_since``: when the view was installed for which it has not reported, else None. ``has_state``: it
    has committed or restored. ``stopped``: the kernel shows it as stopped. ``native_s``, ``interpreter_s``:
    when its native thread ran and its GIL was had last, 0 if it does not tell.
    """

    phase: str
    step: int
    slot: int
    stamp_s: float
    stamps: int
    commits: int = 0
    stopped: bool = False
    has_state: bool = False
    member: bool = True
    owes_since: float | None = None
    native_s: float = 0.0
    interpreter_s: float = 0.0

    def standstill(self, now: float) -> str:
        """Return in which way it stands still, "" if that cannot be told."""
        return standstill.words(self.stamp_s, self.native_s, self.interpreter_s, now)


@dataclass(frozen=True)
class Hang:
    """A suspicion: who, in which phase, for how long and how long it may, where, and what of it stands still.

    Times in seconds.
    """

    worker: int
    phase: str
    seconds: float
    limit: float
    step: int
    slot: int
    why: str = "hung in"
    standstill: str = ""

    def __str__(self) -> str:
        place = f" at step {self.step}" + (f" slot {self.slot}" if self.slot >= 0 else "")
        said = f"{self.why} {self.phase} for {self.seconds:.1f} s" + (place if self.step >= 0 else "")
        return f"{said}; {self.standstill}" if self.standstill else said


@dataclass(frozen=True)
class Verdict:
    """``hung`` are to be killed; ``spared`` are suspected but must live, and ``reason`` says why."""

    hung: tuple[Hang, ...] = ()
    spared: tuple[Hang, ...] = ()
    reason: str = ""


@dataclass
class _History:
    stamps: int = -1
    stamp_s: float = 0.0
    phase: str = "outside"
    stopped_since: float | None = None
    gaps: dict[str, deque[float]] = field(default_factory=dict)


class HangRule:
    """The rule, with what it has seen of each worker.

    Args:
        min_s: No limit is shorter, in seconds.
        outside_s: The limit of user code between steps and after ``apply``, in seconds.
    """

    def __init__(self, min_s: float, outside_s: float) -> None:
        self.min_s = min_s
        self.outside_s = outside_s
        self.state_bytes = 0
        self._seen: dict[int, _History] = {}
        self._last_tick: float | None = None
        self._not_before = float("-inf")

    def observe(self, workers: Mapping[int, Observed], now: float, elsewhere: bool = False) -> Verdict:
        """Judge all live workers of this node at ``now``; call it every tick, with every one.

        ``elsewhere``: a member on another node holds the state.
        """
        late = self._last_tick is not None and now - self._last_tick > LATE_TICK_S
        self._last_tick = now
        self._seen = {w: self._seen.get(w, _History()) for w in workers}
        for worker, seen in workers.items():
            self._note(self._seen[worker], seen, now)
        if late:
            self._not_before = now
            for history in self._seen.values():
                history.stopped_since = None
            return Verdict()
        suspects = [
            s for w, seen in workers.items() if (s := self._suspect(w, seen, workers, now)) is not None
        ]
        patient = {s.worker for s in suspects if s.seconds <= s.limit + self.outside_s}
        return _spare(suspects, workers, patient, elsewhere)

    def limit(self, worker: int, phase: str) -> float:
        """Return the seconds ``worker`` may stay in ``phase`` without a stamp, once it is armed."""
        if phase in ("tail", "outside"):
            floor = self.outside_s
        elif phase == "restoring":
            floor = FACTOR * self.min_s + self.state_bytes / RESTORE_BYTES_PER_S
        else:
            floor = self.min_s
        gaps = self._seen[worker].gaps.get(phase) if worker in self._seen else None
        return max(floor, FACTOR * max(gaps, default=0.0)) if gaps else floor

    def _note(self, history: _History, seen: Observed, now: float) -> None:
        if seen.stamps != history.stamps:
            # What comes before the first commit (compilation, first touch) says nothing of later steps.
            if history.stamps >= 0 and seen.commits > 0:
                gaps = history.gaps.setdefault(history.phase, deque(maxlen=WINDOW))
                gaps.append(max(0.0, seen.stamp_s - history.stamp_s))
            history.stamps, history.stamp_s, history.phase = seen.stamps, seen.stamp_s, seen.phase
        if not seen.stopped:
            history.stopped_since = None
        elif history.stopped_since is None:
            history.stopped_since = now

    def _suspect(
        self, worker: int, seen: Observed, workers: Mapping[int, Observed], now: float
    ) -> Hang | None:
        if not seen.member:
            return None
        where = (seen.step, seen.slot)
        since = self._seen[worker].stopped_since
        if since is not None and seen.phase != "paused" and now - since > self.min_s:
            return Hang(worker, seen.phase, now - since, self.min_s, *where, why="hung, stopped in")
        age = now - max(seen.stamp_s, self._not_before)
        limit = self._armed_limit(worker, seen, workers)
        if limit is not None and age > limit:
            return Hang(worker, seen.phase, age, limit, *where, standstill=seen.standstill(now))
        if seen.owes_since is None or seen.phase in SELF_REPORTING:
            return None
        owed = now - max(seen.owes_since, self._not_before)
        patience = self.limit(worker, seen.phase)
        if owed <= patience:
            return None
        how = seen.standstill(now)
        return Hang(worker, seen.phase, owed, patience, *where, why="hung, no report in", standstill=how)

    def _armed_limit(self, worker: int, seen: Observed, workers: Mapping[int, Observed]) -> float | None:
        if seen.phase in UNJUDGED:
            return None
        if seen.phase == "restoring" or seen.commits >= ARMED_COMMITS:
            return self.limit(worker, seen.phase)
        others = [w for w, o in workers.items() if o.member and o.commits >= ARMED_COMMITS and w != worker]
        return YOUNG_FACTOR * max(self.limit(w, seen.phase) for w in others) if others else None


def _spare(
    suspects: list[Hang], workers: Mapping[int, Observed], patient: set[int], elsewhere: bool
) -> Verdict:
    members = {w for w, seen in workers.items() if seen.member}
    if len(members) > 1 and members <= {s.worker for s in suspects}:
        why = "all members are suspected at once, so the environment is to blame, not a worker"
        return Verdict(
            hung=tuple(s for s in suspects if s.worker not in members & patient),
            spared=tuple(s for s in suspects if s.worker in members & patient),
            reason=why,
        )
    holders = {w for w, seen in workers.items() if seen.has_state}
    accused = sorted((s for s in suspects if s.worker in holders), key=lambda s: (s.seconds, s.worker))
    lost = bool(holders) and not elsewhere and holders <= {s.worker for s in suspects}
    if lost and accused[0].worker in patient:
        last = accused[0]
        why = f"worker {last.worker} holds the last live copy of the state"
        return Verdict(tuple(s for s in suspects if s is not last), (last,), why)
    return Verdict(tuple(suspects))
