"""The canonical reduction: equal bits at every world size, whoever carries what."""

import random

import pytest
import torch
from reduction_case import BLOCK, Case, digest, expected, maps, tensors

from hpresil.comm import arithmetic
from hpresil.comm.exchange import broadcast_bytes, vote
from hpresil.comm.group import build
from hpresil.comm.reduction import reduce
from hpresil.elastic.slots import Node, regular

CASES = [
    Case(seed=1, slots=8, blocks=(3, 1), norm_blocks=(3, 1), special=False),
    Case(seed=2, slots=5, blocks=(7, 2), norm_blocks=(5, 0), special=True),
    Case(seed=3, slots=8, blocks=(1, 0), norm_blocks=(1, 0), special=True),
    Case(seed=4, slots=5, blocks=(2, 7), norm_blocks=(1, 6), special=False),
    Case(seed=5, slots=3, blocks=(21, 0), norm_blocks=(20, 0), special=True),  # more chunks than the window
    Case(seed=6, slots=1, blocks=(4, 1), norm_blocks=(4, 1), special=False),
]
ROUNDS = 3  # the regular map, then random ones


def reduce_case(here, case, carried, rank, generation, chunk_blocks=None, flush=False):
    """Runs in a rank's process: one reduction, in a group that is built when its generation is new."""
    from hpresil.comm import reduction

    if here.group is None or here.group.generation != generation:
        if here.group is not None:
            assert here.group.close(2.0)
        here.build(generation, rank, len(carried))
    nodes = tensors(case, carried[rank])
    before = [digest(flat.numpy()) for own in nodes.values() for flat in own]
    out = [
        torch.full((n * BLOCK,), 7.0, dtype=t)
        for n, t in zip(case.blocks, (torch.float32, torch.float64), strict=True)
    ]
    reduction.CHUNK_BLOCKS = chunk_blocks or 16
    torch.set_flush_denormal(flush)
    try:
        reduced = reduce(
            here.group,
            nodes=nodes,
            out=out,
            carried=carried,
            slots=case.slots,
            stats=torch.from_numpy(case.stats(rank, len(carried))),
            norm_blocks=case.norm_blocks,
            scale_of=lambda stats: float(sum(stats.tolist())),
        )
        still = float("2.2250738585072014e-308") * 0.5 == 0.0
    finally:
        torch.set_flush_denormal(False)
    assert still == flush, "the thread's flush-denormal mode changed"
    assert before == [digest(flat.numpy()) for own in nodes.values() for flat in own], "a node was written"
    return [digest(flat.numpy()) for flat in out], reduced.square_sum.hex(), reduced.stats.tolist()


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_bits_are_those_of_the_tree_for_every_map_of_slots(pool, size):
    pool.need(size)
    generation = pool.generation()
    for case in CASES:
        answer = expected(case)
        for turn in range(ROUNDS):
            carried = maps(turn, case.slots, size) if turn else regular(case.slots, size)
            each = [
                {
                    "case": case,
                    "carried": carried,
                    "rank": rank,
                    "generation": generation,
                    "chunk_blocks": (16, 1, 3)[turn],
                    "flush": turn == 1,
                }
                for rank in range(size)
            ]
            for rank, got in enumerate(pool.run(reduce_case, each)):
                same = got[0] == answer[0] and got[2] == answer[2] and same_number(got[1], answer[1])
                assert same, f"rank {rank} of {size}, {case}, carried {carried}: {got} is not {answer}"


def same_number(one, other):
    """Equal bits, or both NaN."""
    return one == other or (one == other.replace("-", "") == "nan")


def vote_here(here, rank, size, generation, wishes):
    here.build(generation, rank, size)
    first = vote(here.group, wishes)
    return first, vote(here.group)


def test_a_vote_returns_everybodys_wishes(pool):
    pool.need(3)
    generation = pool.generation()
    each = [{"rank": r, "size": 3, "generation": generation, "wishes": 1 << r if r else 0} for r in range(3)]
    assert pool.run(vote_here, each) == [(6, 0)] * 3


def broadcast_here(here, rank, size, generation, root, count):
    if here.group is None or here.group.generation != generation:
        here.build(generation, rank, size)
    values = (
        torch.arange(count, dtype=torch.int64).to(torch.uint8)
        if rank == root
        else torch.zeros(count, dtype=torch.uint8)
    )
    broadcast_bytes(here.group, values, root)
    return bytes(values.numpy()) == bytes(i % 256 for i in range(count))


@pytest.mark.parametrize("count", [0, 1, 300_001])
def test_bytes_arrive_from_any_root(pool, count):
    pool.need(3)
    generation = pool.generation()
    for root in range(3):
        each = [
            {"rank": r, "size": 3, "generation": generation, "root": root, "count": count} for r in range(3)
        ]
        assert pool.run(broadcast_here, each) == [True] * 3


def alone():
    return build(None, generation=1, rank=0, size=1, hostname="127.0.0.1", timeout_s=1.0, page=None)


def call(**changes):
    arguments = {
        "nodes": {Node(0, 0): [torch.zeros(BLOCK)]},
        "out": [torch.zeros(BLOCK)],
        "carried": [[0]],
        "slots": 1,
        "stats": torch.zeros(1, dtype=torch.float64),
        "norm_blocks": [1],
    }
    return reduce(alone(), **(arguments | changes))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"out": [torch.zeros(BLOCK + 1)]}, "whole blocks"),
        ({"out": [torch.zeros(BLOCK, dtype=torch.float16)]}, "float32 or float64"),
        ({"out": [torch.zeros(2 * BLOCK)]}, "not like"),
        ({"nodes": {}}, "contributes"),
        ({"carried": [[0], []]}, "2 ranks for a group of 1"),
        ({"norm_blocks": [2]}, "norm_blocks 2"),
        ({"norm_blocks": []}, "norm_blocks for 0 of 1"),
        ({"slots": 2}, "covered by none"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        call(**changes)


def test_a_group_of_one_sums_without_any_connection():
    assert call(nodes={Node(0, 0): [torch.full((BLOCK,), 3.0)]}).square_sum == 9.0 * BLOCK


def test_sums_of_squares_do_not_depend_on_how_many_blocks_are_summed_at_once():
    generator = torch.Generator().manual_seed(5)
    for dtype in (torch.float32, torch.float64):
        values = torch.randn(5 * BLOCK, generator=generator, dtype=dtype)
        for sums in (
            arithmetic.halving_square_sums,
            lambda v: torch.from_numpy(arithmetic.lane_square_sums(v)),
        ):
            apart = torch.cat([sums(values[i * BLOCK : (i + 1) * BLOCK]) for i in range(5)])
            assert torch.equal(sums(values), apart)
            assert torch.allclose(apart, values.double().view(5, -1).square().sum(1), rtol=1e-12)


def test_the_tree_over_blocks_pairs_neighbours_and_promotes_an_odd_last_one():
    rng = random.Random(1)
    a, b, c, d, e = values = [rng.random() * 10.0 ** rng.randrange(-8, 8) for _ in range(5)]
    assert arithmetic.tree_sum(torch.tensor(values, dtype=torch.float64)) == ((a + b) + (c + d)) + e
    assert arithmetic.tree_sum(torch.zeros(0, dtype=torch.float64)) == 0.0
