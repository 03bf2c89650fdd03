"""Which rank carries which slot, and the fixed tree in which slots are summed.

The problem: floating-point addition is not associative, so a sum over ranks has other bits at
another world size. The design: a batch is cut into S slots, S fixed for the job's life, and sums
follow one balanced binary tree over slot numbers. Ranks only *carry* slots; whoever carries all
slots below a tree node may add them up locally, because it does so in the tree's own order.

The tree: level 0 is the slots; level l+1 pairs nodes 2i and 2i+1 of level l; an odd last one is
promoted unchanged and keeps its name, so every node has one name only. ``Node(level, index)``
covers the slots ``index << level`` up to, not including, ``(index + 1) << level``, cut at S.

Not guaranteed: that an assignment moves the least bytes; it balances the work that remains.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, order=True, slots=True)
class Node:
    """A node of the canonical tree; leaves are ``Node(0, slot)``."""

    level: int
    index: int


class Merge(NamedTuple):
    """One addition of the tree: ``parent = left + right``, in this order."""

    left: Node
    right: Node
    parent: Node


def _named(level: int, index: int, slots: int) -> Node:
    """Return the node at this place, under the name of the level where it was made."""
    while level > 0 and (2 * index + 1) << (level - 1) >= slots:
        level, index = level - 1, 2 * index
    return Node(level, index)


def root(slots: int) -> Node:
    """Return the node that covers all ``slots``.

    Raises:
        ValueError: ``slots`` is below 1.
    """
    if slots < 1:
        raise ValueError(f"a tree needs at least 1 slot, got {slots}")
    return _named((slots - 1).bit_length(), 0, slots)


def span(node: Node, slots: int) -> range:
    """Return the slots below ``node``."""
    return range(node.index << node.level, min((node.index + 1) << node.level, slots))


def children(node: Node, slots: int) -> tuple[Node, ...]:
    """Return the two nodes ``node`` is the sum of, left one first; none for a leaf."""
    if node.level == 0:
        return ()
    level, left = node.level - 1, 2 * node.index
    return _named(level, left, slots), _named(level, left + 1, slots)


def parent(node: Node, slots: int) -> Node | None:
    """Return the node that ``node`` is added into, None for the root."""
    if node == root(slots):
        return None
    level, index = node.level + 1, node.index // 2
    while _named(level, index, slots) == node:
        level, index = level + 1, index // 2
    return Node(level, index)


def cover(slots: int, held: Iterable[int]) -> list[Node]:
    """Return the maximal complete subtrees whose slots are all in ``held``, in slot order."""
    wanted = set(held)
    _check_range(slots, wanted)
    found: list[Node] = []
    pending = [root(slots)]
    while pending:
        node = pending.pop()
        below = span(node, slots)
        if wanted.issuperset(below):
            found.append(node)
        elif not wanted.isdisjoint(below):
            pending.extend(reversed(children(node, slots)))
    return found


def merges(slots: int, nodes: Iterable[Node], goal: Node | None = None) -> list[Merge]:
    """Return the additions that turn ``nodes`` into ``goal`` (default: the root), in an order that works.

    Depth first, left before right, so that few partial sums are alive at a time.

    Raises:
        ValueError: ``nodes`` do not cover ``goal`` exactly.
    """
    given = set(nodes)
    used: set[Node] = set()
    order: list[Merge] = []

    def visit(node: Node) -> None:
        if node in given:
            used.add(node)
            return
        pair = children(node, slots)
        if not pair:
            raise ValueError(f"slot {node.index} of {slots} is covered by none of {sorted(given)}")
        for child in pair:
            visit(child)
        order.append(Merge(pair[0], pair[1], node))

    visit(root(slots) if goal is None else goal)
    if used != given:
        raise ValueError(
            f"nodes {sorted(given - used)} overlap others or lie outside the tree of {slots} slots"
        )
    return order


def regular(slots: int, world_size: int) -> list[list[int]]:
    """Return the map used at every undisturbed step: contiguous runs, as equal as possible."""
    if world_size < 1:
        raise ValueError(f"a map needs at least 1 rank, got {world_size}")
    carried: list[list[int]] = [[] for _ in range(world_size)]
    for slot in range(slots):
        carried[slot * world_size // slots].append(slot)
    return carried


def assign(
    slots: int, world_size: int, kept: Sequence[Sequence[int]], done: Sequence[Sequence[int]]
) -> list[list[int]]:
    """Return the slots each rank carries in a step that a change of members interrupted.

    What ranks kept stays with them. Each missing slot, in ascending order, goes to the rank with
    the least work left; ties go to the slot's regular owner, then to the lowest rank. If nobody
    kept anything this is the regular map.

    Args:
        slots: Number of slots of the job.
        world_size: Number of ranks of the new view.
        kept: By rank, the slots it has finished or is working on.
        done: By rank, those of them it has finished.

    Raises:
        ValueError: lists of the wrong length, a slot kept twice, out of range, or done but not kept.
    """
    _check_kept(slots, world_size, kept, done)
    home = regular(slots, world_size)
    if not any(kept):
        return home
    owner = {slot: rank for rank, own in enumerate(home) for slot in own}
    carried = [list(own) for own in kept]
    left = [len(own) - len(ready) for own, ready in zip(kept, done, strict=True)]
    taken = {slot for own in kept for slot in own}
    for slot in range(slots):
        if slot not in taken:
            rank = min(range(world_size), key=lambda r: (left[r], r != owner[slot], r))
            carried[rank].append(slot)
            left[rank] += 1
    return [sorted(own) for own in carried]


def _check_range(slots: int, given: Iterable[int]) -> None:
    outside = sorted(slot for slot in given if not 0 <= slot < slots)
    if outside:
        raise ValueError(f"slots {outside} do not exist; this job has slots 0 to {slots - 1}")


def _check_kept(
    slots: int, world_size: int, kept: Sequence[Sequence[int]], done: Sequence[Sequence[int]]
) -> None:
    if len(kept) != world_size or len(done) != world_size:
        raise ValueError(f"{world_size} ranks, but kept for {len(kept)} and done for {len(done)}")
    everything = [slot for own in kept for slot in own]
    _check_range(slots, everything)
    twice = sorted({slot for slot in everything if everything.count(slot) > 1})
    if twice:
        raise ValueError(f"slots {twice} are kept more than once: {[list(own) for own in kept]}")
    for rank, (own, ready) in enumerate(zip(kept, done, strict=True)):
        if len(set(ready)) != len(ready) or not set(ready) <= set(own):
            raise ValueError(f"rank {rank} says {list(ready)} are done but keeps {list(own)}")
