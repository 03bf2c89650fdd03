"""The order of samples as a function: which sample stands at a position, without a list of them.

Problem: after any fault, resize or restart the job has to continue at any position of its data order
at no cost, and every sample of an epoch has to be consumed exactly once. A shuffled index list costs
O(N) time and memory before the first step.

Design: a permutation that is computed, not stored. Each is a Feistel network over a grid of
rows x columns cells, where the two coordinates alternately receive a keyed 64-bit mix of the other,
modulo its size. The grid has fewer than N + sqrt(N) + 1 cells (so under 2N); a result outside of
0..N-1 goes through the network again until it lands inside (cycle walking), which keeps it a bijection.

Two levels keep reads nearly sequential and yet mix distant places of the data set:

1. Blocks of ``BLOCK`` consecutive samples are put into a random order: the *line*. The shorter last
   block takes part like any other.
2. The line is cut into windows of ``WINDOW`` samples, and each is shuffled on its own. So ``WINDOW``
   consecutive positions read from ``WINDOW / BLOCK`` places (one or two more at the seams), while one
   batch mixes samples from all of them. A data set of at most one window needs only this level.

Keys depend on (seed, epoch, level, window), so every epoch has an order of its own.

Not guaranteed: this is statistical mixing, not cryptography. Every sample is equally likely at every
place, but not every permutation is equally likely, and of large sets most cannot occur at all.

Sources: Luby and Rackoff, "How to construct pseudorandom permutations" (1988); Black and Rogaway,
"Ciphers with arbitrary finite domains" (2002) for grids and cycle walking; the multipliers of the
mixer are those of Stafford's variant 13, as in SplitMix64.

Invariant 12: the order is a bijection, independent of world size, readers and restarts.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt

from hpresil.base.keys import key

ROUNDS = 6
BLOCK = 256
WINDOW = 1 << 14

_MASK = (1 << 64) - 1
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB
_STRIDE = 0x9E3779B97F4A7C15


def mix(value: int, round_key: int) -> int:
    """Return 63 bits that depend on every bit of ``value`` and ``round_key`` (each below 2^64).

    Every operator wraps in the same way on arrays of unsigned 64-bit integers, so tests can run all
    cells at once; 63 bits leave room to add a coordinate there.
    """
    value = ((value ^ round_key) * _FIRST) & _MASK
    value = ((value ^ (value >> 32)) * _SECOND) & _MASK
    return (value ^ (value >> 32)) >> 1


class Permutation:
    """A keyed bijection of 0..size-1.

    Args:
        size: How many values, at least 1 and below 2^63.
        permutation_key: 64 bits that choose the permutation.
    """

    __slots__ = ("_keys", "columns", "rows", "size")

    def __init__(self, size: int, permutation_key: int) -> None:
        if not 1 <= size < 1 << 63:
            raise ValueError(f"a permutation needs a size between 1 and 2^63 - 1, got {size}")
        self.size = size
        self.rows = isqrt(size - 1) + 1
        self.columns = -(-size // self.rows)
        keys = [mix((turn * _STRIDE) & _MASK, permutation_key) for turn in range(1, ROUNDS + 1)]
        self._keys = tuple(zip(keys[::2], keys[1::2], strict=True))

    def scramble(self, cell: int) -> int:
        """Return the image of ``cell`` in the bijection of all rows x columns cells."""
        rows, columns = self.rows, self.columns
        row, column = cell // columns, cell % columns
        for row_key, column_key in self._keys:  # `mix` written out: this is the hot loop
            bits = ((column ^ row_key) * _FIRST) & _MASK
            bits = ((bits ^ (bits >> 32)) * _SECOND) & _MASK
            row = (row + ((bits ^ (bits >> 32)) >> 1)) % rows
            bits = ((row ^ column_key) * _FIRST) & _MASK
            bits = ((bits ^ (bits >> 32)) * _SECOND) & _MASK
            column = (column + ((bits ^ (bits >> 32)) >> 1)) % columns
        return row * columns + column

    def unscramble(self, cell: int) -> int:
        """Return the cell whose image under `scramble` is ``cell``."""
        rows, columns = self.rows, self.columns
        row, column = cell // columns, cell % columns
        for row_key, column_key in reversed(self._keys):
            column = (column - mix(row, column_key)) % columns
            row = (row - mix(column, row_key)) % rows
        return row * columns + column

    def forward(self, index: int) -> int:
        """Return the image of ``index`` (0..size-1)."""
        image = self.scramble(index)
        while image >= self.size:
            image = self.scramble(image)
        return image

    def inverse(self, image: int) -> int:
        """Return the index whose image is ``image`` (0..size-1)."""
        index = self.unscramble(image)
        while index >= self.size:
            index = self.unscramble(index)
        return index


@lru_cache(maxsize=1024)
def _block_at(blocks: Permutation, turn: int) -> int:
    """One window visits the same few blocks over and over."""
    return blocks.forward(turn)


@lru_cache(maxsize=256)
def _window_permutation(seed: int, epoch: int, window: int, size: int) -> Permutation:
    return Permutation(size, key(seed, "order", epoch, "window", window))


class EpochOrder:
    """The order of one epoch: place in the epoch -> sample, and back.

    Args:
        size: Samples in the data set.
        seed: The job's seed.
        epoch: Which pass over the data set, from 0.
        block: Consecutive samples that stay together on the line.
        window: Samples of the line that are shuffled together.
    """

    __slots__ = ("_blocks", "_cut", "_padding", "block", "epoch", "seed", "size", "window")

    def __init__(self, size: int, seed: int, epoch: int, *, block: int = BLOCK, window: int = WINDOW) -> None:
        if size < 1:
            raise ValueError(f"a data order needs at least one sample, got a size of {size}")
        self.size, self.seed, self.epoch = size, seed, epoch
        self.block, self.window = block, window
        self._blocks: Permutation | None = None
        if size > window:
            count = -(-size // block)
            self._blocks = Permutation(count, key(seed, "order", epoch, "block"))
            # The short last block: where it begins on the line, and what it lacks to a full one.
            self._padding = count * block - size
            self._cut = self._blocks.inverse(count - 1) * block

    def sample(self, place: int) -> int:
        """Return the sample at ``place`` (0..size-1) of this epoch."""
        begin, shuffle = self._window_of(place)
        on_line = begin + shuffle.forward(place - begin)
        if self._blocks is None:
            return on_line
        if on_line >= self._cut + self.block - self._padding:
            on_line += self._padding
        turn, offset = divmod(on_line, self.block)
        return _block_at(self._blocks, turn) * self.block + offset

    def place(self, sample: int) -> int:
        """Return the place in this epoch at which ``sample`` (0..size-1) stands."""
        on_line = sample
        if self._blocks is not None:
            number, offset = divmod(sample, self.block)
            on_line = self._blocks.inverse(number) * self.block + offset
            if on_line >= self._cut + self.block:
                on_line -= self._padding
        begin, shuffle = self._window_of(on_line)
        return begin + shuffle.inverse(on_line - begin)

    def _window_of(self, place: int) -> tuple[int, Permutation]:
        if not 0 <= place < self.size:
            raise ValueError(f"{place} is not one of the {self.size} places of an epoch")
        number = place // self.window
        begin = number * self.window
        length = min(self.window, self.size - begin)
        return begin, _window_permutation(self.seed, self.epoch, number, length)


@lru_cache(maxsize=16)
def _epoch_order(size: int, seed: int, epoch: int) -> EpochOrder:
    return EpochOrder(size, seed, epoch)


def sample_index(position: int, size: int, seed: int) -> int:
    """Return which sample stands at ``position`` of the endless data order.

    Costs the same at every position, and depends on nothing else.

    Args:
        position: Samples consumed before it since the start of the job, at least 0.
        size: Samples in the data set.
        seed: The job's seed.

    Raises:
        ValueError: ``position`` is negative or ``size`` is not positive.
    """
    if position < 0 or size < 1:
        raise ValueError(f"no sample at position {position} of a data set with {size} samples")
    epoch, place = divmod(position, size)
    return _epoch_order(size, seed, epoch).sample(place)


def inverse(sample: int, size: int, seed: int, *, epoch: int = 0) -> int:
    """Return the position at which ``sample`` is consumed in ``epoch``.

    Raises:
        ValueError: ``sample`` is not in 0..size-1, or ``epoch`` is negative.
    """
    if not 0 <= sample < size or epoch < 0:
        raise ValueError(f"no sample {sample} in epoch {epoch} of a data set with {size} samples")
    return epoch * size + _epoch_order(size, seed, epoch).place(sample)
