"""Who sends which bytes to whom, when several ranks hold them and several need them.

The problem: a state lies on several devices, whole or in parts; newcomers need it, and the slowest link
decides when training goes on. The design: the bytes are cut where holders or needs change, and into chunks.
While a piece has no more takers than holders, each taker gets it from the holder that has sent least. With
more takers one of them gets it, and passes it on in a second round: what a source sends does not grow with
the number of newcomers. One source for everybody else is a broadcast, which NCCL pipelines itself.

Copies of one round go out together (one group of sends and receives), in the order of the plan, which pairs
what one rank sends another. Every rank computes the same plan from the same arguments. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from hpresil.base.errors import StateLost

Ranges = Sequence[tuple[int, int]]  # [begin, end) in bytes
CHUNK_BYTES = 16 << 20


@dataclass(frozen=True)
class Copy:
    """Bytes [begin, end) of the state from one rank to another, at the same place on both."""

    source: int
    destination: int
    begin: int
    end: int


@dataclass(frozen=True)
class Plan:
    """Rounds of copies, one after the other; or one broadcast of [0, nbytes) from ``root``, and no rounds."""

    rounds: tuple[tuple[Copy, ...], ...]
    root: int = -1
    nbytes: int = 0


@dataclass
class _Load:
    sent: dict[int, int] = field(default_factory=dict)
    received: dict[int, int] = field(default_factory=dict)

    def source(self, holders: Iterable[int]) -> int:
        return min(holders, key=lambda rank: (self.sent.get(rank, 0), rank))

    def taker(self, takers: Iterable[int]) -> int:
        return min(takers, key=lambda rank: (self.received.get(rank, 0), rank))

    def note(self, copy: Copy) -> Copy:
        nbytes = copy.end - copy.begin
        self.sent[copy.source] = self.sent.get(copy.source, 0) + nbytes
        self.received[copy.destination] = self.received.get(copy.destination, 0) + nbytes
        return copy


def plan(
    size: int, holdings: Mapping[int, Ranges], needs: Mapping[int, Ranges], chunk_bytes: int = CHUNK_BYTES
) -> Plan:
    """Return the plan for a communicator of ``size`` ranks.

    Args:
        size: Ranks of the communicator.
        holdings: The ranges of bytes that each rank holds, valid and unchanged until the end.
        needs: The ranges that each rank needs; no rank needs what it holds.
        chunk_bytes: The largest piece that is given to one source, in bytes.

    Raises:
        StateLost: Nobody holds some of the bytes.
    """
    everything = _one_for_all(size, holdings, needs)
    if everything is not None:
        return everything
    load, first, second = _Load(), [], []
    for begin, end in _pieces(holdings, needs, chunk_bytes):
        takers = [rank for rank, ranges in needs.items() if _covers(ranges, begin, end)]
        holders = [rank for rank, ranges in holdings.items() if _covers(ranges, begin, end)]
        if takers and not holders:
            raise StateLost(
                f"bytes {begin} to {end} of the state are on no rank, but ranks {takers} need them: "
                "restore them from a lower tier"
            )
        relay = load.taker(takers) if len(takers) > len(holders) else -1
        for taker in sorted(takers, key=lambda rank: rank != relay):
            if relay in (-1, taker):
                first.append(load.note(Copy(load.source(holders), taker, begin, end)))
            else:
                second.append(load.note(Copy(relay, taker, begin, end)))
    return Plan(tuple(_joined(copies) for copies in (first, second) if copies))


def part(rounds: Sequence[Sequence[Copy]], rank: int) -> list[list[Copy]]:
    """Return the copies that ``rank`` sends or receives, round by round."""
    return [[copy for copy in copies if rank in (copy.source, copy.destination)] for copies in rounds]


def _one_for_all(size: int, holdings: Mapping[int, Ranges], needs: Mapping[int, Ranges]) -> Plan | None:
    """A broadcast, if one rank holds all and every other rank needs all of it."""
    holders = [rank for rank, ranges in holdings.items() if ranges]
    if len(holders) != 1 or len(holdings[holders[0]]) != 1:
        return None
    (begin, end), others = holdings[holders[0]][0], set(range(size)) - {holders[0]}
    takers = {rank for rank, ranges in needs.items() if list(ranges) == [(begin, end)]}
    if begin != 0 or takers != others or len(others) < 2:
        return None
    return Plan((), holders[0], end)


def _pieces(
    holdings: Mapping[int, Ranges], needs: Mapping[int, Ranges], chunk_bytes: int
) -> list[tuple[int, int]]:
    edges = {
        edge for each in (holdings, needs) for ranges in each.values() for pair in ranges for edge in pair
    }
    pieces = []
    ordered = sorted(edges)
    for begin, end in pairwise(ordered):
        pieces += [(at, min(at + chunk_bytes, end)) for at in range(begin, end, chunk_bytes)]
    return pieces


def _covers(ranges: Ranges, begin: int, end: int) -> bool:
    return any(first <= begin and end <= last for first, last in ranges)


def _joined(copies: list[Copy]) -> tuple[Copy, ...]:
    """Neighbouring pieces between the same two ranks become one copy."""
    joined: list[Copy] = []
    for copy in sorted(copies, key=lambda c: (c.source, c.destination, c.begin)):
        last = joined[-1] if joined else None
        if last is not None and (last.source, last.destination, last.end) == (
            copy.source,
            copy.destination,
            copy.begin,
        ):
            joined[-1] = Copy(copy.source, copy.destination, last.begin, copy.end)
        else:
            joined.append(copy)
    return tuple(joined)
