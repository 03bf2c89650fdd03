"""The canonical tree and the slot maps, over random sizes, holdings and losses."""

import itertools

import pytest
from hypothesis import given, settings, strategies as st

from hpresil.elastic.slots import Node, assign, children, cover, merges, parent, regular, root, span

SLOTS = st.integers(1, 70)


@st.composite
def held_slots(draw):
    slots = draw(SLOTS)
    return slots, sorted(draw(st.sets(st.integers(0, slots - 1))))


@st.composite
def interrupted_steps(draw):
    """A carried map of which some ranks were lost and some slots are done."""
    slots, world = draw(st.integers(1, 24)), draw(st.integers(1, 6))
    holder = [draw(st.integers(-1, world - 1)) for _ in range(slots)]
    kept = [[s for s in range(slots) if holder[s] == rank] for rank in range(world)]
    done = [[s for s in own if draw(st.booleans())] for own in kept]
    return slots, world, kept, done


def levels_by_definition(slots):
    """Return the levels of the tree, built as the design words it: pair up, promote an odd last one."""
    level = [Node(0, s) for s in range(slots)]
    yield level
    depth = 0
    while len(level) > 1:
        depth += 1
        pairs = len(level) // 2
        level = [Node(depth, i) for i in range(pairs)] + level[2 * pairs :]
        yield level


@given(SLOTS)
def test_the_tree_is_the_one_of_the_definition(slots):
    levels = list(levels_by_definition(slots))
    assert levels[-1] == [root(slots)]
    for below, above in itertools.pairwise(levels):
        for i, node in enumerate(above):
            if node in below:  # promoted
                continue
            assert children(node, slots) == (below[2 * i], below[2 * i + 1])
            assert parent(below[2 * i], slots) == parent(below[2 * i + 1], slots) == node
    assert parent(root(slots), slots) is None
    assert all(children(leaf, slots) == () for leaf in levels[0])


@given(SLOTS)
def test_the_children_of_a_node_split_its_span(slots):
    for level in levels_by_definition(slots):
        for node in level:
            if node.level:
                left, right = children(node, slots)
                assert [*span(left, slots), *span(right, slots)] == list(span(node, slots))
                assert len(span(left, slots)) >= len(span(right, slots)) >= 1
    assert list(span(root(slots), slots)) == list(range(slots))


@given(held_slots())
def test_a_cover_is_exact_ordered_and_maximal(case):
    slots, held = case
    nodes = cover(slots, held)
    assert [s for node in nodes for s in span(node, slots)] == held
    for node in nodes:
        above = parent(node, slots)
        assert above is None or not set(span(above, slots)) <= set(held)


@given(held_slots())
def test_covers_of_a_partition_merge_to_the_root_in_tree_order(case):
    slots, held = case
    rest = sorted(set(range(slots)) - set(held))
    nodes = cover(slots, held) + cover(slots, rest)
    terms = {node: _expression(node, slots) for node in nodes}
    for left, right, above in merges(slots, nodes):
        terms[above] = f"({terms.pop(left)}+{terms.pop(right)})"
    assert terms == {root(slots): _expression(root(slots), slots)}


def _expression(node, slots):
    pair = children(node, slots)
    return f"({'+'.join(_expression(child, slots) for child in pair)})" if pair else str(node.index)


@given(st.integers(1, 70), st.integers(1, 12))
def test_the_regular_map_is_contiguous_and_balanced(slots, world):
    carried = regular(slots, world)
    assert [s for own in carried for s in own] == list(range(slots))
    sizes = {len(own) for own in carried}
    assert sizes <= {slots // world, -(-slots // world)}
    for rank, own in enumerate(carried):
        assert all(s * world // slots == rank for s in own)


@settings(max_examples=300)
@given(interrupted_steps())
def test_an_assignment_keeps_what_was_kept_and_covers_every_slot_once(case):
    slots, world, kept, done = case
    carried = assign(slots, world, kept, done)
    assert sorted(s for own in carried for s in own) == list(range(slots))
    if not any(kept):
        assert carried == regular(slots, world)
        return
    assert all(set(own) <= set(now) and now == sorted(now) for own, now in zip(kept, carried, strict=True))
    left = [len(set(own)) - len(ready) for own, ready in zip(carried, done, strict=True)]
    for rank, own in enumerate(carried):
        if len(own) > len(kept[rank]):  # it was given something: then nobody had less to do
            assert left[rank] <= min(left) + 1


@pytest.mark.parametrize(
    ("kept", "done", "expected"),
    [
        ([[0, 1], [4, 5]], [[0, 1], [4, 5]], [[0, 1, 2, 7], [3, 4, 5, 6]]),
        ([[0, 1], [4, 5]], [[], [4, 5]], [[0, 1, 7], [2, 3, 4, 5, 6]]),
        ([[0, 1, 2, 3], []], [[0, 1, 2, 3], []], [[0, 1, 2, 3, 5, 7], [4, 6]]),
    ],
)
def test_missing_slots_go_to_the_rank_with_least_left_then_home_then_lowest(kept, done, expected):
    assert assign(8, 2, kept, done) == expected


@pytest.mark.parametrize(
    ("kept", "done", "words"),
    [
        ([[0], [0]], [[], []], "kept more than once"),
        ([[9], []], [[], []], "do not exist"),
        ([[1], []], [[2], []], "are done but keeps"),
        ([[1]], [[]], "2 ranks"),
    ],
)
def test_a_report_that_cannot_be_true_is_refused(kept, done, words):
    with pytest.raises(ValueError, match=words):
        assign(4, 2, kept, done)


def test_nodes_that_leave_a_gap_or_overlap_are_refused():
    with pytest.raises(ValueError, match="slot 2 of 4 is covered by none"):
        merges(4, [Node(1, 0), Node(0, 3)])
    with pytest.raises(ValueError, match="overlap"):
        merges(4, [Node(1, 0), Node(0, 0), Node(1, 1)])
    with pytest.raises(ValueError, match="at least 1 slot"):
        root(0)
