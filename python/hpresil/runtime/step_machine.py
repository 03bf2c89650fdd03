"""The worker's half of the step contract, as a pure state machine.

A step has a part that changes nothing and a part that cannot fail half way. For step v a worker is

* ``empty``       it has no state and waits to copy one,
* ``arriving``    it has what a gradient needs of version v and runs slots, the rest is being copied; to
                  everybody else it has no state: it reports as empty, is no source, and does not reduce,
* ``computing``   it runs slots; tracked state is version v and does not change,
* ``holding``     it has the complete reduced gradient and has voted,
* ``committing``  the vote (or a decision) allows the commit: the optimizer runs or has run, and the
                  end of the block, which makes version v + 1, is pending.

The rules it keeps, checked exhaustively in ``tests/unit/runtime/test_step_model.py``:

1. The report is a promise: once `on_view` has reported for generation g + 1, a vote of generation g
   cannot make this worker commit, however late it completes.
2. A committing worker reports only at the end of its block, as version v + 1.
3. No reduction of a generation starts before that generation's decision.
4. A holding worker one version behind the target applies its gradient; a holding worker at the target
   drops the reduced gradient, keeps its slots and reduces again.
5. A worker that has finished its loop still answers views: the last version is one like any other.
6. A worker with an arriving state reports none and drops what it computed; one that a view leaves out too.

Every function takes a `StepState` and returns a new one; the caller holds a lock around them. `next_action`
says what the training thread has to do next.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hpresil.elastic.slots import regular
from hpresil.membership.messages import Decision, Report


@dataclass(frozen=True)
class StepState:
    """What one worker knows about its step; immutable and hashable."""

    worker: int
    slots: int
    version: int = -1
    phase: str = "empty"
    installed: int = 0  # newest generation whose view is known
    promised: int = 0  # newest generation reported for
    decided: int = 0  # newest generation whose decision was applied
    members: tuple[int, ...] = ()
    assigned: frozenset[int] = frozenset()
    started: frozenset[int] = frozenset()
    done: frozenset[int] = frozenset()
    carried: tuple[tuple[int, ...], ...] = ()  # by rank, for this step
    source: int | None = None  # where this worker copies its state from
    target: int = -1
    lost: int = 0  # newest generation whose group failed
    handed: int = 0  # newest generation that was left at the end of a step, for a newer view
    finished: bool = False  # it left the loop, or the decision says that the loop ends here

    @property
    def rank(self) -> int | None:
        """The worker's place in the installed view, or None."""
        return self.members.index(self.worker) if self.worker in self.members else None

    @property
    def held(self) -> int:
        """The version that could be copied from this worker, -1 if none."""
        return -1 if self.phase in ("empty", "arriving") else self.version


@dataclass(frozen=True)
class RunSlot:
    """Compute ``slot``."""

    slot: int


@dataclass(frozen=True)
class ReduceGradient:
    """Exchange, then vote, in the group of ``generation``."""

    generation: int


@dataclass(frozen=True)
class Commit:
    """Leave the loop over microbatches and apply the gradient."""


@dataclass(frozen=True)
class CopyState:
    """Copy version ``version`` from ``source`` (a worker, or -1: the agent's sealed frame)."""

    generation: int
    version: int
    source: int


@dataclass(frozen=True)
class Wait:
    """Nothing to do until a message arrives; ``why`` completes "waiting for …"."""

    why: str


Action = RunSlot | ReduceGradient | Commit | CopyState | Wait
Next = tuple[StepState, list[Report]]


class ContractBroken(AssertionError):
    """A message asks for what the step contract rules out; going on could corrupt state."""


def _report(s: StepState) -> Next:
    s = replace(_without_state(s) if s.phase == "arriving" else s, promised=s.installed)
    said = Report(
        generation=s.promised,
        version=s.version,
        phase=s.phase,
        kept=sorted(s.started | s.done),
        done=sorted(s.done),
        finished=s.finished,
    )
    return s, [said]


def on_view(s: StepState, generation: int, members: tuple[int, ...]) -> Next:
    """A view arrived. Reports for it at once, unless a commit is under way."""
    if generation <= s.installed:
        return s, []
    s = replace(s, installed=generation, members=members)
    if s.phase == "committing":
        return s, []
    return _report(s) if s.worker in members else (_without_state(s), [])


def on_decision(s: StepState, d: Decision) -> StepState:
    """The regroup decision of the promised generation arrived; older ones have no effect."""
    rank = s.rank
    current = d.generation == s.promised == s.installed
    if not current or rank is None or s.phase == "committing":
        return s
    carried = tuple(tuple(slots) for slots in d.slots)
    s = replace(s, decided=d.generation, target=d.target, source=None, finished=s.finished or d.finished)
    if s.worker in d.sources:
        if s.phase != "empty":
            raise ContractBroken(f"worker {s.worker} has version {s.version} and is told to copy {d.target}")
        return replace(s, source=d.sources[s.worker], assigned=frozenset(carried[rank]), carried=carried)
    if s.worker in d.roll:
        if s.phase != "holding" or s.version != d.target - 1:
            raise ContractBroken(
                f"worker {s.worker} is told to roll from version {s.version} ({s.phase}) to {d.target}"
            )
        # What it carries in step `target` is set when its block ends; the decision's map must survive.
        return replace(s, phase="committing", carried=carried)
    if d.initial and rank == 0 and s.phase == "empty":
        s = replace(s, version=0, phase="computing")
    if s.version != d.target:
        raise ContractBroken(
            f"worker {s.worker} has version {s.version}, the decision's target is {d.target}"
        )
    if s.phase == "holding":
        s = replace(s, phase="computing")
    return replace(s, assigned=frozenset(carried[rank]), carried=carried)


def next_action(s: StepState) -> Action:
    """Return what the training thread has to do now."""
    if s.phase == "committing":
        return Commit()
    if s.rank is None:
        return Wait(f"a view with worker {s.worker} in it")
    if s.decided != s.installed:
        return Wait(f"the regroup decision of generation {s.installed}")
    if s.phase == "empty":
        if s.source is None:
            return Wait("a new view, after its state was discarded")
        return CopyState(s.decided, s.target, s.source)
    if s.phase == "holding":
        return Wait(f"the vote of step {s.version} in generation {s.decided}")
    open_slots = s.assigned - s.done
    if open_slots:
        return RunSlot(min(open_slots))
    if s.phase == "arriving":
        return Wait(f"the rest of the state of version {s.version}")
    if s.lost == s.decided:
        return Wait(f"a new view after the group of generation {s.lost} failed")
    return ReduceGradient(s.decided)


def start_slot(s: StepState, slot: int) -> StepState:
    """The training thread starts ``slot``; from now on reports say that it keeps it."""
    return replace(s, started=s.started | {slot})


def finish_slot(s: StepState, slot: int) -> StepState:
    """The gradient of ``slot`` is complete; it is worth nothing if the state it came from was given up."""
    if slot not in s.started:
        return s
    return replace(s, started=s.started - {slot}, done=s.done | {slot})


def drop_slot(s: StepState, slot: int) -> StepState:
    """User code failed in ``slot``: it is as if it had not been started."""
    return replace(s, started=s.started - {slot})


def gradient_complete(s: StepState, generation: int) -> StepState | None:
    """The reduced gradient of ``generation`` is complete; None if that generation is over."""
    if generation != s.promised or generation != s.decided or s.phase != "computing":
        return None
    return replace(s, phase="holding")


def vote_counted(s: StepState, generation: int) -> StepState:
    """Every member's vote of ``generation`` arrived; without effect after a newer promise."""
    if generation != s.promised or generation != s.decided or s.phase != "holding":
        return s
    return replace(s, phase="committing")


def group_failed(s: StepState, generation: int) -> StepState:
    """A collective of ``generation`` failed: nothing is reduced before a newer view."""
    return replace(s, lost=max(s.lost, generation))


def block_ended(s: StepState) -> Next:
    """The block of a committing worker ended: version v + 1 exists, and a waiting view is answered.

    It carries on with the regular map, or with its decision's map if that told it to roll forward.
    """
    if s.phase != "committing":
        raise ContractBroken(f"the block of step {s.version} ended in phase {s.phase!r}")
    carried = s.carried
    if s.target != s.version + 1:
        carried = tuple(tuple(slots) for slots in regular(s.slots, len(s.members)))
    s = replace(
        s,
        version=s.version + 1,
        phase="computing",
        started=frozenset(),
        done=frozenset(),
        assigned=frozenset(carried[s.rank]) if s.rank is not None and s.rank < len(carried) else frozenset(),
        carried=carried,
    )
    if s.rank is None:
        return _without_state(s), []
    return _report(s) if s.installed > s.promised else (s, [])


def handed_over(s: StepState, generation: int) -> StepState:
    """All members of ``generation`` stop at the end of this step: the next one needs a newer view."""
    return replace(s, handed=max(s.handed, generation))


def state_installed(s: StepState, generation: int, version: int) -> StepState:
    """A copy of ``version`` was installed for ``generation``; ignored if that generation is over."""
    if generation != s.promised or s.phase != "empty":
        return s
    return replace(s, version=version, phase="computing", source=None, started=frozenset(), done=frozenset())


def computable(s: StepState, generation: int, version: int) -> StepState:
    """What a gradient needs of ``version`` was installed; ignored if that generation is over."""
    if generation != s.promised or s.phase != "empty":
        return s
    return replace(s, version=version, phase="arriving", source=None, started=frozenset(), done=frozenset())


def state_arrived(s: StepState, generation: int) -> StepState:
    """The rest of it was installed too; ignored if that generation is over."""
    if generation != s.promised or s.phase != "arriving":
        return s
    return replace(s, phase="computing")


def arrival_failed(s: StepState, generation: int) -> StepState:
    """The rest of it could not be copied."""
    if generation != s.promised or s.phase != "arriving":
        return s
    return _without_state(s)


def _without_state(s: StepState) -> StepState:
    none: frozenset[int] = frozenset()
    return replace(s, version=-1, phase="empty", source=None, started=none, done=none, assigned=none)


def state_discarded(s: StepState) -> Next:
    """The worker's own state is worth nothing any more; it will copy one."""
    s = _without_state(s)
    return _report(s) if s.installed > s.promised and s.rank is not None else (s, [])


def loop_finished(s: StepState) -> StepState:
    """The training loop ended at the current version."""
    return replace(s, finished=True)


def with_version(s: StepState, version: int) -> StepState:
    """The worker brings ``version`` from a checkpoint to its first view."""
    return replace(s, version=version, phase="computing")
