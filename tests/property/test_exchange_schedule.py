"""Who sends what to whom: without a gap or an overlap, for every map of slots and every set of homes."""

from __future__ import annotations

import random

import pytest

from hpresil.comm.schedule import Schedule
from hpresil.elastic.slots import span

GROUPS, TRIES = 10, 30


def some_schedule(rng: random.Random) -> tuple[Schedule, int, list[int]]:
    size, slots = rng.randint(1, 7), rng.randint(1, 20)
    carried: list[list[int]] = [[] for _ in range(size)]
    for slot in range(slots):
        carried[rng.randrange(size)].append(slot)
    nodes = [rng.randrange(size) for _ in range(size)]
    homes = tuple(nodes.index(node) for node in nodes)
    blocks = (rng.randint(0, 40), rng.randint(0, 5))
    return Schedule(slots, tuple(map(tuple, carried)), blocks, rng.randint(1, 9), homes), slots, list(homes)


@pytest.fixture(params=range(GROUPS))
def found(request: pytest.FixtureRequest) -> list[tuple[Schedule, int, list[int]]]:
    rng = random.Random(request.param)
    return [some_schedule(rng) for _ in range(TRIES)]


def test_an_owner_gets_every_slot_exactly_once(found: list[tuple[Schedule, int, list[int]]]) -> None:
    for plan, slots, _ in found:
        for way in plan.ways:
            nodes = [*way.visible, *(node for _, node in way.arriving)]
            assert sorted(slot for node in nodes for slot in span(node, slots)) == list(range(slots))


def test_what_is_awaited_is_sent_and_nothing_else(found: list[tuple[Schedule, int, list[int]]]) -> None:
    for plan, _, _ in found:
        awaited = {
            (sender, owner, node) for owner, way in enumerate(plan.ways) for sender, node in way.arriving
        }
        sent = {
            (sender, owner, node)
            for sender, way in enumerate(plan.ways)
            for owner in way.served
            for node in way.contributed
        }
        assert awaited == sent
        results = {(owner, to) for owner, way in enumerate(plan.ways) for to in way.partners}
        assert results == {(owner, to) for to, way in enumerate(plan.ways) for owner in way.served}


def test_each_result_enters_each_other_home_once_and_all_of_it_is_there_to_collect(
    found: list[tuple[Schedule, int, list[int]]],
) -> None:
    for plan, _, homes in found:
        for rank, way in enumerate(plan.ways):
            together = [rank, *way.mates]
            assert sorted(together) == [mate for mate, home in enumerate(homes) if home == homes[rank]]
            owners = [owner for mate in together for owner in (mate, *plan.ways[mate].served)]
            assert sorted(owners) == list(range(len(homes)))


def test_chunks_cover_every_block_once_and_no_two_messages_have_one_tag(
    found: list[tuple[Schedule, int, list[int]]],
) -> None:
    for plan, _, _ in found:
        chunks = [chunk for own in plan.chunks for chunk in own]
        places = [(chunk.flat, chunk.first_block + at) for chunk in chunks for at in range(chunk.blocks)]
        assert len(places) == len(set(places))
        assert [chunk.number for chunk in chunks] == list(range(len(chunks)))
        nodes = {node for way in plan.ways for node in way.contributed}
        tags = [plan.part_tag(chunk, node) for chunk in chunks for node in nodes]
        tags += [plan.result_tag(chunk) for chunk in chunks]
        assert len(tags) == len(set(tags))
