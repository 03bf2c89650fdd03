"""The coordinator against a world of workers that die, hang, fail and come back at random moments.

Invariants (numbers as in the design): 6 nothing is said to the lost, and older generations have no
effect; 7 a decision needs all reports of its generation and its target is the highest; 8 the job
ends without any deadline, whatever happened; 4 every slot is assigned once; 15 a replay gives the
same state. `coordinator_world` checks them at every message.
"""

from __future__ import annotations

import sys
from pathlib import Path

from hypothesis import example, given, settings, strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from coordinator_worker import Plan
from coordinator_world import World


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    workers = draw(st.integers(1, 4))
    return Plan(
        workers=workers,
        spares=draw(st.integers(0, 2)),
        min_workers=draw(st.integers(1, workers)),
        steps=draw(st.integers(1, 4)),
        kills=draw(st.integers(0, 6)),
        stops=draw(st.integers(0, 2)),
        discards=draw(st.integers(0, 1)),
        bad_copies=draw(st.integers(0, 3)),
        lost_groups=draw(st.integers(0, 2)),
        drain=draw(st.booleans()),
        restarts=draw(st.sampled_from([0, 1, 3, 100])),
        haste=draw(st.sampled_from([0.01, 0.03, 0.1, 0.3])),
    )


@st.composite
def plans_of_nodes(draw: st.DrawFn, *, faults: bool) -> Plan:
    """Several nodes with room for a few more processes, and people who change their minds."""
    places = draw(st.integers(1, 3))
    nodes = draw(st.integers(1, 3))
    workers = draw(st.integers(1, min(5, nodes * places)))

    def number(most: int) -> int:
        return draw(st.integers(0, most)) if faults else 0

    return Plan(
        workers=workers,
        spares=draw(st.integers(0, 2)),
        min_workers=draw(st.integers(1, min(workers, 2))),
        steps=draw(st.integers(1, 8)),
        nodes=nodes,
        places=places,
        kills=number(3),
        stops=number(1),
        discards=number(1),
        bad_copies=number(2),
        lost_groups=number(1),
        node_losses=number(3),
        cuts=number(1),
        returns=draw(st.integers(0, 4)),
        drains=draw(st.integers(0, 4)),
        resizes=draw(st.integers(0, 4)),
        drain=draw(st.booleans()) and faults,
        haste=draw(st.sampled_from([0.03, 0.1, 0.3])),
    )


def play(plan: Plan, seed: int) -> World:
    world = World(plan, seed)
    world.run()
    world.check_replay()
    return world


@settings(max_examples=250, deadline=None, derandomize=True, print_blob=True)
@given(plans(), st.integers(0, 2**32))
def test_whatever_happens_the_job_comes_to_an_end_and_no_rule_is_broken(plan: Plan, seed: int) -> None:
    faults = plan.kills + plan.stops + plan.discards
    end = play(plan, seed).ended
    assert end is not None
    if not faults:
        assert end.status == 0, end


@settings(max_examples=60, deadline=None, derandomize=True, print_blob=True)
@given(st.integers(0, 2**32), st.integers(2, 4))
@example(0, 2)
def test_a_job_that_keeps_one_worker_with_state_finishes(seed: int, workers: int) -> None:
    """One death among several members is always survived: nothing but the last version ends the job."""
    plan = Plan(workers=workers, spares=1, steps=4, kills=1)
    world = play(plan, seed)
    assert world.ended is not None
    assert world.ended.status == 0
    assert world.ended.reason == "finished at version 4"


@settings(max_examples=300, deadline=None, derandomize=True, print_blob=True)
@given(plans_of_nodes(faults=True), st.integers(0, 2**32))
def test_nodes_that_come_and_go_and_people_who_change_their_minds_break_no_rule(
    plan: Plan, seed: int
) -> None:
    assert play(plan, seed).ended is not None


@settings(max_examples=300, deadline=None, derandomize=True, print_blob=True)
@given(plans_of_nodes(faults=False), st.integers(0, 2**32))
def test_draining_and_resizing_cost_no_worker_no_restart_and_no_step(plan: Plan, seed: int) -> None:
    world = play(plan, seed)
    assert world.ended is not None
    assert world.ended.reason == f"finished at version {plan.steps}"
    assert world.state.losses == ()
    assert world.state.restarts == 0
    assert {worker.version for worker in world.workers.values() if worker.alive} <= {plan.steps, -1}
