"""A peer that stops or dies in any phase of a reduction: the others fail in time, and repeat the step."""

import signal
import time

import pytest

from hpresil.elastic.slots import regular
from rank_calls import build_here, close_here, step_here, stop_in
from rank_pool import RankPool
from reduction_case import Case, expected, maps

CASE = Case(seed=9, slots=8, blocks=(24, 3), norm_blocks=(24, 2), special=False)
PROMPT_S = 3.0  # far below every timeout; the machine may be busy

PHASES = [
    ("canonical", "statistics", 1),
    ("canonical", "agreement", 1),
    ("canonical", "supply", 1),
    ("canonical", "supply", 2),
    ("canonical", "fold", 1),
    ("canonical", "meet", 1),
    ("canonical", "collect", 1),
    ("native", "statistics, native", 1),
    ("native", "all-reduce", 1),
    ("native", "all-reduce", 2),
    ("native", "norm", 1),
]
NODES = "aabb"


@pytest.fixture(scope="module")
def pool():
    """Processes of its own: gloo may lose an operation here, and what is then left behind ends late."""
    ranks = RankPool()
    yield ranks
    ranks.close()


def start_step(pool, size, kind, carried):
    for number in range(size):
        pool.start(number, step_here, case=CASE, carried=carried, node=NODES[number], kind=kind)
    for number in range(size):
        assert pool.hear(number) == ("entered",)


def form(pool, size):
    generation = pool.generation()
    pool.run(build_here, [{"rank": r, "size": size, "generation": generation} for r in range(size)])


def repeat_the_step(pool, kind):
    """The survivors do it in a group of their own, with slots as uneven as a fault leaves them."""
    form(pool, 3)
    start_step(pool, 3, kind, maps("after", CASE.slots, 3))
    answers = [pool.result(number) for number in range(3)]
    assert answers[0] == answers[1] == answers[2]
    canonical = tuple(expected(CASE))
    assert answers[0][2] == canonical[2]
    assert kind == "native" or answers[0] == canonical


@pytest.mark.parametrize("killed", [False, True], ids=["interrupted", "killed"])
@pytest.mark.parametrize(("kind", "phase", "after"), PHASES)
def test_a_peer_that_is_lost_in_any_phase_ends_the_reduction_of_all_others(pool, kind, phase, after, killed):
    pool.need(4)
    form(pool, 4)
    pool.start(3, stop_in, phase=phase, after=after)
    pool.result(3)
    start_step(pool, 4, kind, regular(CASE.slots, 4))
    pool.wait_stopped(3)
    began = time.monotonic()
    if killed:
        pool.signal(3, signal.SIGKILL)
    else:
        for number in range(3):
            pool.interrupt(number)
    results = [pool.result(number) for number in range(3)]
    assert [result[0] for result in results] == ["lost"] * 3, results
    assert all("repeated in the next generation" in result[2] for result in results), results
    assert [result[3][0] for result in results] == [0, 1, 2]
    assert max(result[1] for result in results) - began < PROMPT_S
    pool.run(close_here, [{}] * 3)
    repeat_the_step(pool, kind)
    if not killed:
        pool.signal(3, signal.SIGCONT)
        late = pool.result(3)
        assert late[0] == "lost", f"a rank that woke up after the others had gone committed: {late}"
