"""What the members of a new generation do, from their reports alone.

Each report is a promise: nothing of an older generation can make that worker commit any more. So
once every member has reported for this very generation, the highest reported version is what was
committed, and everybody can be brought there:

* members that hold it stay;
* a member one version behind that *holds* the reduced gradient applies it ("roll");
* a member without state copies it;
* nobody else can be behind. If somebody is, the step contract was broken, and the job stops.

If no member holds anything, the state is version 0 as rank 0's script built it (only while no step
was ever committed), or the agent's newest sealed frame, or lost.

The finished part of a step survives: slots stay with the members at the target that keep them, and
only missing ones are assigned anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hpresil.elastic import slots as slot_maps
from hpresil.membership.messages import Decision, Report


@dataclass(frozen=True)
class Known:
    """What is needed beside the reports.

    Attributes:
        slots: Slots of a step.
        pristine: Members whose state is still as the script built it.
        newest: The highest version that is known to have existed; -1 for none.
        resumed: The job started from a checkpoint.
        sealed: The newest version in a sealed frame of an agent; -1 for none.
        store: The node of that agent.
        avoid: Sources that failed before, used only if there is no other.
    """

    slots: int
    pristine: frozenset[int] = frozenset()
    newest: int = -1
    resumed: bool = False
    sealed: int = -1
    store: str = ""
    avoid: tuple[int, ...] = ()


@dataclass(frozen=True)
class Undecided:
    """Why there is no decision.

    ``kind``: "unseeded" (a worker with the state as built must be rank 0), "lost" (no copy of the
    state is left), "broken" (the reports contradict the step contract).
    """

    kind: str
    reason: str


def decide(
    generation: int, members: Sequence[int], reports: Mapping[int, Report], known: Known
) -> Decision | Undecided:
    """Return what ``members`` (by rank) do, given the report of each for ``generation``."""
    target = max(reports[m].version for m in members)
    if target < 0:
        return _without_state(generation, members, known)
    holders = [m for m in members if reports[m].version == target]
    empty = [m for m in members if reports[m].version < 0]
    roll = [m for m in members if 0 <= reports[m].version < target]
    for m in roll:
        report = reports[m]
        if report.version != target - 1 or report.phase != "holding":
            return Undecided(
                "broken",
                f"worker {m} reports version {report.version} ({report.phase}) for generation {generation}, "
                f"while worker {holders[0]} has version {target}; only a worker that holds the gradient of "
                f"step {target - 1} can be behind. This is a defect of hpresil, please report it",
            )
    source = next((m for m in holders if m not in known.avoid), holders[0])
    return Decision(
        generation=generation,
        target=target,
        sources=dict.fromkeys(empty, source),
        roll=roll,
        slots=_carry(members, holders, reports, known.slots),
        finished=any(reports[m].finished for m in holders),
    )


def _without_state(generation: int, members: Sequence[int], known: Known) -> Decision | Undecided:
    """Nobody holds a version: begin, copy the agent's frame, wait, or give up."""
    slots = slot_maps.regular(known.slots, len(members))
    fresh = known.newest <= 0 and not known.resumed
    if fresh and members[0] in known.pristine:
        sources = dict.fromkeys(members[1:], members[0])
        return Decision(generation=generation, target=0, sources=sources, roll=[], slots=slots, initial=True)
    if known.sealed >= 0:
        sources = dict.fromkeys(members, -1)
        return Decision(
            generation=generation,
            target=known.sealed,
            sources=sources,
            roll=[],
            slots=slots,
            store=known.store,
        )
    if fresh:
        return Undecided("unseeded", "no member has the state as the script built it")
    return Undecided(
        "lost",
        f"workers {', '.join(map(str, members))} have no copy, and no agent holds a sealed snapshot",
    )


def _carry(
    members: Sequence[int], holders: Sequence[int], reports: Mapping[int, Report], slots: int
) -> list[list[int]]:
    """Return the slots of each rank; of two workers that keep the same slot, who has it done wins."""
    done = {m: set(reports[m].done) & set(reports[m].kept) for m in holders}
    owner: dict[int, int] = {}
    for m in holders:
        for slot in reports[m].kept:
            if 0 <= slot < slots and (
                slot not in owner or (slot in done[m] and slot not in done[owner[slot]])
            ):
                owner[slot] = m
    kept = [sorted(slot for slot, m in owner.items() if m == member) for member in members]
    finished = [[slot for slot in kept[r] if slot in done.get(m, ())] for r, m in enumerate(members)]
    return slot_maps.assign(slots, len(members), kept, finished)
