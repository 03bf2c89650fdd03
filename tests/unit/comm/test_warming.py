"""The plan of pre-warming: sizes, neighbours, and that ranks fit together."""

import pytest

from hpresil.comm.warming import Call, Edge, plan, scratch_bytes


def test_sums_of_three_sizes_one_of_each_other_collective_and_the_neighbours_at_real_size() -> None:
    batches = plan(4, 1, [Edge(0, 1, 500), Edge(1, 2, 700), Edge(2, 3, 900)], sums=(4, 400, 4000))
    assert [call.operation for batch in batches[:-1] for call in batch] == [
        *["all_reduce"] * 3,
        "broadcast",
        "reduce",
        "all_gather",
        "reduce_scatter",
    ]
    assert [call.nbytes for batch in batches[:3] for call in batch] == [4, 400, 4000]
    assert batches[-1] == (Call("receive", 500, 0), Call("send", 700, 2))
    assert scratch_bytes(batches, 4) == 4 * 4096


def test_every_send_has_its_receive_and_collectives_are_the_same_everywhere() -> None:
    edges = [Edge(a, b, 100 * a + b + 4) for a in range(5) for b in range(5) if a != b]
    plans = [plan(5, rank, edges) for rank in range(5)]
    assert len({tuple(each[:-1]) for each in plans}) == 1
    sends = [(rank, c.peer, c.nbytes) for rank, p in enumerate(plans) for c in p[-1] if c.operation == "send"]
    receives = [
        (c.peer, rank, c.nbytes) for rank, p in enumerate(plans) for c in p[-1] if c.operation == "receive"
    ]
    assert sorted(sends) == sorted(receives)
    assert len(sends) == 20


def test_a_rank_without_neighbours_sends_nothing_and_an_edge_to_nobody_is_refused() -> None:
    assert len(plan(3, 2, [Edge(0, 1, 8)])) == 7
    for wrong in (Edge(0, 3, 8), Edge(1, 1, 8)):
        with pytest.raises(ValueError, match="connects no two ranks"):
            plan(3, 0, [wrong])
