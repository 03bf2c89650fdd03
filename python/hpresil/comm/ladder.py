"""What to do about a communicator when its members change: a decision without hands.

The problem: the quickest way from one set of members to the next (revoke, shrink, grow) is not in every NCCL,
can fail half way on some ranks only, and must never wait without an end. The design: `decide` turns (state,
event, now) into (state, actions). Which rungs are climbed follows from what the version can do, alone, so all
ranks climb the same ones. A rung that fails or is late ends in `GiveUp`: this rank aborts what it has and
says so; the others hear of it as a change that is `fresh`, and everybody initialises anew under the next
generation. Nobody repairs alone.

Pure: times are seconds of any clock that goes forward, and arguments.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

RUNGS = ("revoke", "shrink", "grow", "initialise")


@dataclass(frozen=True)
class Changed:
    """A newer generation: ``lost`` ranks of the old communicator, and how many newcomers.

    Args:
        generation: The newer generation; older ones have no effect.
        ranks: Members of the new communicator.
        lost: Ranks of the old communicator that are gone.
        newcomers: Members that have no part in the old one.
        fresh: Some rank has none to build on: it gave up, or is new in a group that cannot grow.
        reason: Why, for whoever waits in the old one.
    """

    generation: int
    ranks: int
    lost: frozenset[int]
    newcomers: int
    fresh: bool
    reason: str


@dataclass(frozen=True)
class Succeeded:
    """A rung was climbed."""

    generation: int
    rung: str


@dataclass(frozen=True)
class Failed:
    """A rung failed, or (with an empty rung) the communicator did while it was in use."""

    generation: int
    rung: str
    reason: str


@dataclass(frozen=True)
class Passed:
    """Time has passed."""


Event = Changed | Succeeded | Failed | Passed


@dataclass(frozen=True)
class Climb:
    """Begin a rung for this generation; its end comes back as an event."""

    generation: int
    rung: str
    change: Changed


@dataclass(frozen=True)
class Abort:
    """Abort every communicator there is, with this reason."""

    reason: str


@dataclass(frozen=True)
class Use:
    """The communicator of this generation is ready."""

    generation: int


@dataclass(frozen=True)
class GiveUp:
    """Tell the coordinator that this rank has no communicator of this generation."""

    generation: int
    reason: str


@dataclass(frozen=True)
class Stop:
    """Initialising anew failed too often; the job cannot go on like this."""

    reason: str


Action = Climb | Abort | Use | GiveUp | Stop


@dataclass(frozen=True)
class Limits:
    """How long each rung may take, in seconds, and how often an initialisation may fail in a row."""

    revoke_s: float = 2.0
    shrink_s: float = 10.0
    grow_s: float = 20.0
    initialise_s: float = 60.0
    failures: int = 3

    def of(self, rung: str) -> float:
        """Return the seconds that ``rung`` may take."""
        return {
            "revoke": self.revoke_s,
            "shrink": self.shrink_s,
            "grow": self.grow_s,
            "initialise": self.initialise_s,
        }[rung]


@dataclass(frozen=True)
class Ladder:
    """Where one rank stands.

    Attributes:
        features: What NCCL can do here; all ranks have the same.
        left: The rungs from the current one on; empty while the communicator is in use or there is none.
        since: When the current rung was begun, in seconds.
        holds: There is a communicator, whole or not.
        failures: Initialisations that failed in a row.
    """

    features: frozenset[str]
    limits: Limits = Limits()
    generation: int = 0
    left: tuple[str, ...] = ()
    change: Changed | None = None
    since: float = 0.0
    holds: bool = False
    stopped: bool = False
    failures: int = 0


def path(features: frozenset[str], change: Changed, holds: bool) -> tuple[str, ...]:
    """Return the rungs from the old communicator to the new one.

    Args:
        features: What NCCL can do here (`native.Nccl.features`).
        change: The newer generation.
        holds: This rank has a whole communicator of the old one.
    """
    can = not (change.lost and "shrink" not in features) and not (change.newcomers and "grow" not in features)
    if change.fresh or not holds or not can or not (change.lost or change.newcomers):
        return ("initialise",)  # also for the same members: the old one may hold operations of its generation
    revoke = ("revoke",) if change.lost and "revoke" in features else ()
    return revoke + (("shrink",) if change.lost else ()) + (("grow",) if change.newcomers else ())


def decide(ladder: Ladder, event: Event, now: float) -> tuple[Ladder, tuple[Action, ...]]:
    """Return the next state and what to do, in order.

    ``now``: seconds of the clock that all calls use. An event of an older generation, or of a rung that was
    left, has no effect.
    """
    if ladder.stopped:
        return ladder, ()
    if isinstance(event, Changed):
        return _change(ladder, event, now) if event.generation > ladder.generation else (ladder, ())
    if isinstance(event, Passed):
        if not ladder.left or now < ladder.since + ladder.limits.of(ladder.left[0]):
            return ladder, ()
        rung = ladder.left[0]
        return _fall(ladder, f"{rung} did not end within {ladder.limits.of(rung):g} s")
    current = ladder.left[0] if ladder.left else ""
    if event.generation != ladder.generation or event.rung != current:
        return ladder, ()  # of a generation, or a rung, that was left
    if isinstance(event, Failed):
        return _fall(ladder, event.reason) if current or ladder.holds else (ladder, ())
    return _climb(ladder, ladder.left[1:], now) if current else (ladder, ())


def _change(ladder: Ladder, change: Changed, now: float) -> tuple[Ladder, tuple[Action, ...]]:
    # In the middle of a rung a communicator is neither the old nor the new one: nothing to build on.
    whole = ladder.holds and not ladder.left
    rungs = path(ladder.features, change, whole)
    ladder = replace(ladder, generation=change.generation, change=change)
    aborted: tuple[Action, ...] = ()
    if rungs == ("initialise",) and ladder.holds:
        aborted, ladder = (Abort(change.reason),), replace(ladder, holds=False)
    ladder, actions = _climb(ladder, rungs, now)
    return ladder, aborted + actions


def _climb(ladder: Ladder, rungs: tuple[str, ...], now: float) -> tuple[Ladder, tuple[Action, ...]]:
    change = ladder.change
    if not rungs or change is None:
        return replace(ladder, left=(), holds=True, failures=0), (Use(ladder.generation),)
    ladder = replace(ladder, left=rungs, since=now, holds=True)
    return ladder, (Climb(ladder.generation, rungs[0], change),)


def _fall(ladder: Ladder, reason: str) -> tuple[Ladder, tuple[Action, ...]]:
    failures = ladder.failures + (ladder.left == ("initialise",))
    stopped = failures >= ladder.limits.failures
    ladder = replace(ladder, left=(), holds=False, failures=failures, stopped=stopped)
    if stopped:
        return ladder, (
            Abort(reason),
            Stop(f"{failures} initialisations in a row failed, the last: {reason}"),
        )
    return ladder, (Abort(reason), GiveUp(ladder.generation, reason))
