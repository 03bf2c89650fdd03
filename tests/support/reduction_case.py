"""One reduction as data: what each slot contributes, who carries what, and the slow, obvious answer."""

import hashlib
import random
from dataclasses import dataclass

import numpy as np

from hpresil.elastic.slots import Node, children, cover, root, span

BLOCK = 16384
DTYPES = (np.float32, np.float64)


@dataclass(frozen=True)
class Case:
    seed: int
    slots: int
    blocks: tuple[int, ...]  # of the float32 and the float64 tensor
    norm_blocks: tuple[int, ...]
    special: bool  # with -0.0, denormals, infinities and NaN

    def gradient(self, slot, flat):
        """What a slot contributes: magnitudes so mixed that every other order gives other bits."""
        rng = np.random.default_rng([self.seed, slot, flat])
        size = self.blocks[flat] * BLOCK
        values = rng.standard_normal(size) * 2.0 ** rng.integers(-20, 20, size)
        values = values.astype(DTYPES[flat])
        if self.special and size:
            tiny = float(np.finfo(DTYPES[flat]).smallest_subnormal)
            odd = np.array([-0.0, 0.0, 3 * tiny, -tiny, np.inf, -np.inf, np.nan], DTYPES[flat])
            places = rng.integers(0, size, 4000)
            values[places] = rng.choice(odd, 4000)
            values[:64] = -0.0
            values[64:128] = tiny * (slot + 1)
        return values

    def stats(self, rank, size):
        """One entry a slot, 1/3 of the slot's number plus one, on the rank of slot mod size."""
        return np.array([(s + 1) / 3 if s % size == rank else 0.0 for s in range(self.slots)])

    @property
    def weight(self):
        total = 0.0
        for s in range(self.slots):
            total += (s + 1) / 3
        return total


def node_sum(case, node, flat):
    """Return the sum below a node by the tree's definition."""
    pair = children(node, case.slots)
    if not pair:
        return case.gradient(node.index, flat)
    with np.errstate(all="ignore"):
        return node_sum(case, pair[0], flat) + node_sum(case, pair[1], flat)


def expected(case):
    """Return (digests, square sum in hex, stats) without any exchange."""
    blocks, flats = [], []
    with np.errstate(all="ignore"):
        for flat in range(len(case.blocks)):
            total = node_sum(case, root(case.slots), flat)
            counted = case.norm_blocks[flat] * BLOCK
            total[:counted] = total[:counted] / DTYPES[flat](case.weight)
            flats.append(total)
            for start in range(0, counted, BLOCK):
                blocks.append(lane_sum(total[start : start + BLOCK]))
        while len(blocks) > 1:
            above = [a + b for a, b in zip(blocks[::2], blocks[1::2], strict=False)]
            blocks = above + blocks[2 * len(above) :]
    square_sum = float(blocks[0]) if blocks else 0.0
    return [digest(flat) for flat in flats], square_sum.hex(), [(s + 1) / 3 for s in range(case.slots)]


def lane_sum(block):
    """Sum of squares in 16 lanes, one number at a time down each lane."""
    rows = block.astype(np.float64).reshape(-1, 16) ** 2
    lanes = np.zeros(16)
    for row in rows:
        lanes = lanes + row
    for width in (8, 4, 2, 1):
        lanes = lanes[:width] + lanes[width : 2 * width]
    return lanes[0]


def digest(values):
    """Return a digest of the bits, with one payload for all NaN."""
    plain = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
    return hashlib.blake2b(plain.tobytes(), digest_size=8).hexdigest()


def random_map(rng, slots, size):
    """Return who carries what: any distribution, idle ranks included."""
    carried = [[] for _ in range(size)]
    for slot in range(slots):
        carried[rng.randrange(size)].append(slot)
    return carried


def tensors(case, carried):
    """Return the nodes a rank contributes, folded from its slots."""
    import torch

    return {
        node: [torch.from_numpy(node_sum(case, node, flat)) for flat in range(len(case.blocks))]
        for node in cover(case.slots, carried)
    }


def maps(seed, slots, size):
    rng = random.Random(f"{seed}/{slots}/{size}")
    return random_map(rng, slots, size)


__all__ = ["BLOCK", "Case", "Node", "digest", "expected", "maps", "span", "tensors"]
