"""The canonical reduction: equal bits at every world size, whoever carries what."""

import random

import numpy as np
import pytest
import torch

from hpresil.comm import arithmetic
from hpresil.comm.group import build
from hpresil.comm.reduction import reduce, square_sum
from hpresil.elastic.slots import Node, regular
from rank_calls import broadcast_here, reduce_case, vote_here
from reduction_case import BLOCK, Case, expected, lane_sum, maps

CASES = [
    Case(seed=1, slots=8, blocks=(3, 1), norm_blocks=(3, 1), special=False),
    Case(seed=2, slots=5, blocks=(7, 2), norm_blocks=(5, 0), special=True),
    Case(seed=3, slots=8, blocks=(1, 0), norm_blocks=(1, 0), special=True),
    Case(seed=4, slots=5, blocks=(2, 7), norm_blocks=(1, 6), special=False),
    Case(seed=5, slots=3, blocks=(21, 0), norm_blocks=(20, 0), special=True),  # more chunks than the window
    Case(seed=6, slots=1, blocks=(4, 1), norm_blocks=(4, 1), special=False),
]
ROUNDS = 3  # the regular map, then random ones


NODES = {  # where the ranks are, in the order of ranks; None: in memory that nobody can read
    1: ["a", "-"],
    2: ["aa", "ab", "--", "a-"],
    3: ["aaa", "abc", "aab", "aba", "abb", "---", "a-a", "-a-"],
    4: ["aaaa", "abcd", "aabb", "abab", "abbb", "aaab", "abca", "----", "a-aa", "a-bb"],
}
WORLDS = [nodes for worlds in NODES.values() for nodes in worlds]


@pytest.mark.parametrize("nodes", WORLDS)
def test_bits_are_those_of_the_tree_for_every_map_of_slots_and_ranks_on_every_node(pool, nodes):
    """Read within a node, sent between nodes, and both."""
    size = len(nodes)
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
                    "chunk_blocks": (64, 1, 3)[turn],
                    "flush": turn == 1,
                    "node": None if nodes[rank] == "-" else nodes[rank],
                }
                for rank in range(size)
            ]
            for rank, (got, arrived, read) in enumerate(pool.run(reduce_case, each)):
                where = f"rank {rank} of {size}, {case}, carried {carried}"
                same = got[0] == answer[0] and got[2] == answer[2] and same_number(got[1], answer[1])
                assert same, f"{where}: {got} is not {answer}"
                lonely = nodes[rank] == "-" or nodes.count(nodes[rank]) == 1
                assert not (read and lonely), f"{where} read {read} bytes although it is alone"
                elsewhere = nodes[rank] == "-" or nodes.count(nodes[rank]) < size
                assert not arrived or elsewhere, f"{where}: {arrived} bytes arrived from nowhere"


def test_one_rank_that_cannot_read_its_neighbours_makes_its_node_send_and_no_other(pool):
    pool.need(4)
    generation = pool.generation()
    for turn in range(2):  # the second time it is known
        each = [
            {
                "case": CASES[1],
                "carried": maps(turn, CASES[1].slots, 4),
                "rank": rank,
                "generation": generation,
            }
            | {"node": "aabb"[rank], "blind": rank == 1}
            for rank in range(4)
        ]
        done = pool.run(reduce_case, each)
        assert all(same_answer(got, expected(CASES[1])) for got, _, _ in done)
        assert [read > 0 for _, _, read in done] == [False, False, True, True]


EVEN = Case(seed=7, slots=8, blocks=(48, 0), norm_blocks=(48, 0), special=False)


@pytest.mark.parametrize(
    ("nodes", "crossing"),
    [("aa", 0), ("ab", 2), ("abcd", 6), ("aabb", 2), ("aab", 2), ("abb", 2), ("aaab", 2), ("aaaa", 0)],
)
def test_each_byte_crosses_once_between_nodes_however_many_workers_they_have(pool, nodes, crossing):
    """In gradients: each node takes in what the others have of its part, and the result of the rest."""
    size = len(nodes)
    pool.need(size)
    generation = pool.generation()
    each = [
        {
            "case": EVEN,
            "carried": [[0, 1, 2, 3], [4, 5], [6, 7]] if size == 3 else regular(8, size),
            "rank": rank,
            "generation": generation,
            "node": nodes[rank],
        }
        for rank in range(size)
    ]
    if nodes == "aab":  # so that a node's slots are one node of the tree
        each = [one | {"carried": [[0, 1], [2, 3], [4, 5, 6, 7]]} for one in each]
    done = pool.run(reduce_case, each)
    gradient = EVEN.blocks[0] * BLOCK * 4
    expected_bytes = crossing * gradient
    if nodes == "aaab":  # the slots of three workers are two nodes of the tree, each of which is sent
        expected_bytes += gradient // 4
    assert sum(arrived for _, arrived, _ in done) == expected_bytes
    for rank, (_, _, read) in enumerate(done):
        assert bool(read) == (nodes.count(nodes[rank]) > 1)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_backends_all_reduce_gives_every_rank_the_same_bits_close_to_those_of_the_tree(pool, size):
    pool.need(size)
    generation = pool.generation()
    for case in CASES:
        answer, differed = expected(case), []
        for turn in range(ROUNDS):
            carried = maps(turn, case.slots, size) if turn else regular(case.slots, size)
            each = [
                {"case": case, "carried": carried, "rank": rank, "generation": generation, "kind": "native"}
                for rank in range(size)
            ]
            first, *others = [got for got, _, _ in pool.run(reduce_case, each)]
            assert all(same_answer(other, first) for other in others), f"{case}, carried {carried}"
            assert first[2] == answer[2], "the statistics are exact in any order"
            if not case.special and case.norm_blocks != (0, 0):
                assert float.fromhex(first[1]) == pytest.approx(float.fromhex(answer[1]), rel=1e-4)
            differed.append(first[0] != answer[0])
            assert same_answer(pool.run(reduce_case, each)[0][0], first), "the same again gives other bits"
        if size == 1 and case.slots == 1:
            assert differed[0] is False


def same_answer(one, other):
    return one[0] == other[0] and one[2] == other[2] and same_number(one[1], other[1])


def same_number(one, other):
    """Equal bits, or both NaN."""
    return one == other or (one == other.replace("-", "") == "nan")


def test_a_vote_returns_everybodys_wishes(pool):
    pool.need(3)
    generation = pool.generation()
    each = [{"rank": r, "size": 3, "generation": generation, "wishes": 1 << r if r else 0} for r in range(3)]
    assert pool.run(vote_here, each) == [(6, 0)] * 3


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
    """On the CPU they are those of the lanes; elsewhere of halves: each exact, and close."""
    generator = torch.Generator().manual_seed(5)
    for dtype in (torch.float32, torch.float64):
        values = torch.randn(5 * BLOCK, generator=generator, dtype=dtype)
        blocks = values.view(5, BLOCK)
        lanes = torch.zeros(5, dtype=torch.float64)
        arithmetic.square_sums(values.numpy(), lanes.numpy())
        assert lanes.tolist() == [lane_sum(block.numpy()) for block in blocks]
        halves = arithmetic.halving_square_sums(values)
        assert torch.equal(halves, torch.cat([arithmetic.halving_square_sums(block) for block in blocks]))
        assert torch.allclose(halves, lanes, rtol=1e-12)
        assert square_sum([values, values], [5, 2]) == arithmetic.tree_sum(
            torch.cat([lanes, lanes[:2]]).numpy()
        )


def test_the_tree_over_blocks_pairs_neighbours_and_promotes_an_odd_last_one():
    rng = random.Random(1)
    a, b, c, d, e = values = [rng.random() * 10.0 ** rng.randrange(-8, 8) for _ in range(5)]
    assert arithmetic.tree_sum(np.array(values)) == ((a + b) + (c + d)) + e
    assert arithmetic.tree_sum(np.zeros(0)) == 0.0
