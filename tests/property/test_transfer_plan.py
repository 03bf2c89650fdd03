"""Every byte that is needed arrives exactly once, from somebody who has it by then."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings, strategies as st

from hpresil.base.errors import StateLost
from hpresil.comm.transfer_plan import Copy, Plan, part, plan

NBYTES = 60


def test_one_source_for_everybody_is_a_broadcast() -> None:
    assert plan(3, {1: [(0, 10)]}, {0: [(0, 10)], 2: [(0, 10)]}) == Plan((), root=1, nbytes=10)


def test_one_newcomer_gets_stripes_of_all_sources_at_once() -> None:
    whole = [(0, 40)]
    made = plan(5, dict.fromkeys(range(4), whole), {4: whole}, chunk_bytes=10)
    assert made.rounds == ((Copy(0, 4, 0, 10), Copy(1, 4, 10, 20), Copy(2, 4, 20, 30), Copy(3, 4, 30, 40)),)


def test_what_a_source_sends_does_not_grow_with_the_newcomers() -> None:
    whole = [(0, 120)]
    for newcomers in (2, 3, 5):
        ranks = range(2, 2 + newcomers)
        made = plan(3 + newcomers, {0: whole, 1: whole}, dict.fromkeys(ranks, whole), chunk_bytes=1)
        sent = [
            sum(c.end - c.begin for copies in made.rounds for c in copies if c.source == s) for s in (0, 1)
        ]
        if newcomers == 2:
            assert sent == [120, 120]
        else:
            assert sent == [60, 60]


def test_bytes_that_nobody_holds_are_named() -> None:
    with pytest.raises(StateLost, match=r"bytes 10 to 20 .* ranks .2. need them"):
        plan(3, {0: [(0, 10)], 1: [(20, 30)]}, {2: [(0, 30)]})


def ranges_of(mask):
    found, begin = [], None
    for at, held in enumerate([*mask, False]):
        if held and begin is None:
            begin = at
        if not held and begin is not None:
            found.append((begin, at))
            begin = None
    return found


@settings(max_examples=200, deadline=None)
@given(
    size=st.integers(2, 7),
    data=st.data(),
    chunk=st.integers(1, 70),
)
def test_every_needed_byte_arrives_once_from_a_rank_that_has_it(size, data, chunk) -> None:
    masks = st.one_of(st.just([True] * NBYTES), st.lists(st.booleans(), min_size=NBYTES, max_size=NBYTES))
    wants = st.one_of(st.just([False] * NBYTES), masks)
    held = {rank: data.draw(masks) if data.draw(st.booleans()) else [False] * NBYTES for rank in range(size)}
    needed = {
        rank: [want and not has for want, has in zip(data.draw(wants), held[rank], strict=True)]
        for rank in range(size)
    }
    lost = [
        at
        for at in range(NBYTES)
        if any(m[at] for m in needed.values()) and not any(m[at] for m in held.values())
    ]
    arguments = (
        size,
        {r: ranges_of(m) for r, m in held.items()},
        {r: ranges_of(m) for r, m in needed.items()},
        chunk,
    )
    if lost:
        with pytest.raises(StateLost):
            plan(*arguments)
        return
    made = plan(*arguments)
    assert made == plan(*arguments)
    has = {rank: list(mask) for rank, mask in held.items()}
    if made.root >= 0:
        assert all(mask == [rank != made.root] * NBYTES for rank, mask in needed.items())
        assert held[made.root] == [True] * NBYTES
        return
    for copies in made.rounds:
        arrived = []
        for copy in copies:
            assert all(has[copy.source][copy.begin : copy.end]), "sent before it was there"
            arrived.append(copy)
        for copy in arrived:
            for at in range(copy.begin, copy.end):
                assert needed[copy.destination][at], "not needed, or twice"
                needed[copy.destination][at] = False
                has[copy.destination][at] = True
    assert not any(any(mask) for mask in needed.values())
    parts = [part(made.rounds, rank) for rank in range(size)]
    for place, copies in enumerate(made.rounds):
        assert sum(len(each[place]) for each in parts) == 2 * len(copies)


@settings(max_examples=50, deadline=None)
@given(sources=st.integers(1, 6), newcomers=st.integers(1, 6), chunk=st.integers(1, 30))
def test_sources_that_hold_everything_send_alike(sources, newcomers, chunk) -> None:
    assume(not (sources == 1 and newcomers > 1))
    whole = [(0, 600)]
    made = plan(
        sources + newcomers,
        dict.fromkeys(range(sources), whole),
        {sources + i: whole for i in range(newcomers)},
        chunk,
    )
    sent = [sum(c.end - c.begin for c in made.rounds[0] if c.source == source) for source in range(sources)]
    assert max(sent) - min(sent) <= chunk
