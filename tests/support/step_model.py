"""Exhaustive check of the product's step machine and of the coordinator's decision together.

Three members and one spare train one step (version 0 to 1, or more); up to two of them crash, each at any
point; views and decisions arrive at any time; votes complete late, also in parked threads of generations
that are over. Breadth first over all reachable states.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from hpresil.membership.decision import Known, Undecided, decide
from hpresil.membership.messages import Decision, Report
from hpresil.runtime import step_machine as sm

MEMBERS, SPARE, SLOTS = (0, 1, 2), 3, 3


@dataclass(frozen=True)
class World:
    """Everything that exists at one moment; None is a dead worker."""

    workers: tuple[sm.StepState | None, ...]
    generation: int
    members: tuple[int, ...]
    views: tuple[tuple[int, ...], ...]  # by generation
    reports: frozenset[tuple[int, int, str, tuple[int, ...], tuple[int, ...], bool]]
    decision: tuple[object, ...] | None
    entered: frozenset[tuple[int, int, int, tuple[int, ...]]]  # (generation, version, worker, its slots)
    votes: frozenset[tuple[int, int, int]]
    faults: int


def frozen(d: Decision) -> tuple[object, ...]:
    return (
        d.generation,
        d.target,
        tuple(d.sources.items()),
        tuple(d.roll),
        tuple(map(tuple, d.slots)),
        d.finished,
    )


def thawed(t: tuple[object, ...]) -> Decision:
    generation, target, sources, roll, slots, finished = t
    return Decision(
        generation=generation,  # type: ignore[arg-type]
        target=target,  # type: ignore[arg-type]
        sources=dict(sources),  # type: ignore[call-overload]
        roll=list(roll),  # type: ignore[call-overload]
        slots=[list(s) for s in slots],  # type: ignore[attr-defined]
        finished=finished,  # type: ignore[arg-type]
    )


@dataclass(frozen=True)
class Rules:
    """The machine under test; a test swaps one function to show that its rule is needed."""

    on_view: Callable[[sm.StepState, int, tuple[int, ...]], sm.Next] = sm.on_view
    vote_counted: Callable[[sm.StepState, int], sm.StepState] = sm.vote_counted
    next_action: Callable[[sm.StepState], sm.Action] = sm.next_action
    finished_stay: bool = True


class Model:
    def __init__(self, rules: Rules, *, final: int, max_faults: int) -> None:
        self.rules, self.final, self.max_faults = rules, final, max_faults

    def start(self) -> World:
        carried = ((0,), (1,), (2,))
        workers = [
            sm.StepState(
                worker=w, slots=SLOTS, version=0, phase="computing", installed=1, promised=1, decided=1,
                members=MEMBERS, assigned=frozenset(carried[w]), carried=carried, target=0,
            )
            for w in MEMBERS
        ]  # fmt: skip
        spare = sm.StepState(worker=SPARE, slots=SLOTS)
        views = ((), MEMBERS)
        return World((*workers, spare), 1, MEMBERS, views, frozenset(), None, frozenset(), frozenset(), 0)

    # ---------------------------------------------------------------- transitions

    def successors(self, world: World) -> Iterator[World]:
        for w, s in enumerate(world.workers):
            if s is None:
                continue
            if world.faults < self.max_faults:
                yield from self.crash(world, w)
                if s.phase == "committing" and len(world.members) > 1:
                    yield self.discard(world, w, s)
                if s.phase == "arriving" and s.promised == world.generation:
                    yield self.damage(world, w, s)
            yield from self.deliver(world, w, s)
            yield from self.act(world, w, s)
        yield from self.regroup(world)

    def crash(self, world: World, w: int) -> Iterator[World]:
        world = replace(world, workers=put(world.workers, w, None), faults=world.faults + 1)
        if w not in world.members:
            yield world
            return
        spare_free = world.workers[SPARE] is not None and SPARE not in world.members
        after = tuple(SPARE if m == w and spare_free else m for m in world.members)
        after = tuple(m for m in after if world.workers[m] is not None)
        if after:
            yield replace(
                world, generation=world.generation + 1, members=after, views=(*world.views, after),
                reports=frozenset(), decision=None,
            )  # fmt: skip

    def discard(self, world: World, w: int, s: sm.StepState) -> World:
        """User code raised after the commit: a new generation with the same members."""
        s2, said = sm.state_discarded(s)
        world = self.said(replace(world, workers=put(world.workers, w, s2)), w, said)
        return replace(
            world,
            faults=world.faults + 1,
            generation=world.generation + 1,
            views=(*world.views, world.members),
            reports=frozenset(),
            decision=None,
        )

    def damage(self, world: World, w: int, s: sm.StepState) -> World:
        """The rest of a state could not be copied: a new generation with the same members."""
        failed = sm.arrival_failed(s, s.promised)
        assert failed.phase == "empty"
        return replace(
            world,
            workers=put(world.workers, w, failed),
            faults=world.faults + 1,
            generation=world.generation + 1,
            views=(*world.views, world.members),
            reports=frozenset(),
            decision=None,
        )

    def deliver(self, world: World, w: int, s: sm.StepState) -> Iterator[World]:
        if not self.rules.finished_stay and s.version >= self.final:
            return
        if s.installed < world.generation and w in world.members:
            s2, said = self.rules.on_view(s, world.generation, world.members)
            yield self.said(replace(world, workers=put(world.workers, w, s2)), w, said)
        if world.decision is not None and s.installed == world.generation and s.decided < world.generation:
            s2 = sm.on_decision(s, thawed(world.decision))
            if s2 != s:
                yield replace(world, workers=put(world.workers, w, s2))

    def said(self, world: World, w: int, said: list[Report]) -> World:
        for r in said:
            if r.generation == world.generation:
                entry = (w, r.version, r.phase, tuple(r.kept), tuple(r.done), r.finished)
                world = replace(world, reports=world.reports | {entry})
        return world

    def regroup(self, world: World) -> Iterator[World]:
        if world.decision is not None or world.generation == 1:
            return
        reports = {
            w: Report(generation=world.generation, version=v, phase=p, kept=list(k), done=list(d), finished=f)
            for w, v, p, k, d, f in world.reports
        }
        if set(world.members) <= set(reports):
            decision = decide(world.generation, world.members, reports, Known(slots=SLOTS, newest=1))
            if isinstance(decision, Undecided):
                raise AssertionError(f"{decision.kind}: {decision.reason}")
            yield replace(world, decision=frozen(decision))

    def act(self, world: World, w: int, s: sm.StepState) -> Iterator[World]:
        for generation in {g for g, v, x in world.votes if x == w and v == s.version}:
            everyone = {(generation, s.version, m) for m in world.views[generation]}
            if s.phase == "holding" and everyone <= world.votes:
                s2 = self.rules.vote_counted(s, generation)
                if s2 != s:
                    yield replace(world, workers=put(world.workers, w, s2))
        # Only while somebody has that version: if its source is lost, a new view follows.
        sources = [x for x in world.workers if x is not None and x.held == s.version]
        if s.phase == "arriving" and s.promised == world.generation and sources:
            yield replace(world, workers=put(world.workers, w, sm.state_arrived(s, s.promised)))
        if s.version >= self.final and s.phase == "arriving":
            return
        if s.version >= self.final and s.phase == "computing":
            if not s.finished:
                yield replace(world, workers=put(world.workers, w, sm.loop_finished(s)))
            return
        action = self.rules.next_action(s)
        if isinstance(action, sm.Commit):
            s2, said = sm.block_ended(s)
            yield self.said(replace(world, workers=put(world.workers, w, s2)), w, said)
        elif isinstance(action, sm.RunSlot):
            begun = sm.start_slot(s, action.slot)
            yield replace(world, workers=put(world.workers, w, sm.finish_slot(begun, action.slot)))
        elif isinstance(action, sm.ReduceGradient):
            yield from self.reduce(world, w, s, action.generation)
        elif isinstance(action, sm.CopyState):
            source = world.workers[action.source]
            if source is not None and source.version == action.version and source.phase != "committing":
                assert source.phase != "arriving", f"a state is copied from one that is not whole: {world}"
                whole = sm.state_installed(s, action.generation, action.version)
                part = sm.computable(s, action.generation, action.version)
                for s2 in (whole, part):
                    yield replace(world, workers=put(world.workers, w, s2))

    def reduce(self, world: World, w: int, s: sm.StepState, generation: int) -> Iterator[World]:
        mine = (generation, s.version, w)
        shares = {x: slots for g, v, x, slots in world.entered if (g, v) == mine[:2]}
        if w not in shares:
            yield replace(world, entered=world.entered | {(*mine, tuple(sorted(s.done)))})
        elif set(shares) == set(world.views[generation]):
            held = sm.gradient_complete(s, generation)
            if held is not None:
                counted = sorted(slot for slots in shares.values() for slot in slots)
                assert counted == list(range(SLOTS)), f"slots {counted} make up a gradient: {world}"
                yield replace(world, workers=put(world.workers, w, held), votes=world.votes | {mine})

    # ---------------------------------------------------------------- search

    def done(self, world: World) -> bool:
        alive = [world.workers[m] for m in world.members]
        settled = world.generation == 1 or world.decision is not None
        return settled and all(s is not None and s.version == self.final and s.finished for s in alive)

    def check(self) -> int:
        """Return the number of states; raise AssertionError at the first violation."""
        first = self.start()
        seen, queue = {first}, deque([first])
        while queue:
            world = queue.popleft()
            stuck = True
            for after in self.successors(world):
                stuck = stuck and after.faults > world.faults  # only another crash is possible
                if after not in seen:
                    self.inspect(after)
                    seen.add(after)
                    queue.append(after)
            assert not stuck or self.done(world), f"nobody can go on: {world}"
        return len(seen)

    def inspect(self, world: World) -> None:
        versions = [s.version for s in world.workers if s is not None and s.version >= 0]
        assert max(versions) - min(versions) <= 1, f"two versions apart: {world}"
        assert all(v <= self.final for v in versions), f"a step was committed twice: {world}"


def put(
    workers: tuple[sm.StepState | None, ...], w: int, s: sm.StepState | None
) -> tuple[sm.StepState | None, ...]:
    return (*workers[:w], s, *workers[w + 1 :])
