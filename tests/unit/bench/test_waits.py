"""A bench that waits for processes of its own fails in time, says whom it waited for, and leaves none."""

from __future__ import annotations

import multiprocessing
import sys
from types import SimpleNamespace

import pytest
from bench.micro import ranks
from bench.micro.transfer_chain import HOPS, Chain, ChainError

import bench_ranks


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = {process.pid for process in multiprocessing.active_children()}
    yield
    assert {process.pid for process in multiprocessing.active_children()} <= before


def test_what_the_ranks_say_comes_by_turn_in_their_order() -> None:
    found = ranks.said(bench_ranks.counts, [(0, 2), (1, 2)], turns=2, within_s=60)
    assert found == [[(0, 0), (1, 0)], [(0, 1), (1, 1)]]


def test_a_rank_that_says_nothing_is_named_in_time() -> None:
    with pytest.raises(ranks.RankFailed, match=r"rank 1 \(process \d+\) has not done its turn for 8 s"):
        ranks.said(bench_ranks.says_nothing, [(0, 2), (1, 1)], turns=2, within_s=8)


def test_a_rank_that_does_not_end_is_named_in_time() -> None:
    with pytest.raises(ranks.RankFailed, match=r"rank 1 .* has not ended for 8 s after its last turn"):
        ranks.said(bench_ranks.says_nothing, [(0, 1), (1, 1)], turns=1, within_s=8)


def test_a_rank_that_ends_in_its_turn_is_named_with_its_status() -> None:
    with pytest.raises(ranks.RankFailed, match=r"rank 1 .* ended with status 7 before its turn was done"):
        ranks.said(bench_ranks.dies, [(0, 2), (1, 2)], turns=2, within_s=60)


def test_a_rank_that_ends_badly_after_its_last_turn_fails_the_bench() -> None:
    with pytest.raises(ranks.RankFailed, match=r"rank 1 .* ended with status 5.* after its last turn"):
        ranks.said(bench_ranks.ends_badly, [(0, 1), (1, 1)], turns=1, within_s=60)


def chain(what: str, **more) -> Chain:
    command = [sys.executable, bench_ranks.__file__, what]
    return Chain(SimpleNamespace(nbytes=1, fd=-1), SimpleNamespace(), command=command, **more)


def test_a_receiver_of_a_chain_that_says_nothing_is_named_in_time() -> None:
    with (
        pytest.raises(ChainError, match=r"receiver 0 .* has said nothing for 6 s"),
        chain("silent", silence_s=6.0) as made,
    ):
        made._all_done()
    assert all(hop.returncode is not None for hop in made._hops)


def test_a_receiver_that_has_ended_is_named() -> None:
    with pytest.raises(ChainError, match="receiver 0 of the chain has ended"), chain("ends") as made:
        assert len(made._ports) == HOPS
        made._all_done()
