"""Small blocks are judged together: few tries, hardly a byte more, and who is unlike the others is seen."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hpresil.checkpoint import codec, codec_judgement
from hpresil.checkpoint.codec import Block, decode, encode
from hpresil.checkpoint.codec_format import ENTRY_BYTES, HEADER_BYTES, Way, read_head
from hpresil.checkpoint.codec_judgement import RUN_BLOCKS, SMALL_BYTES, Piece, runs

zstandard = pytest.importorskip(
    "zstandard", reason="compression is an extra: pip install 'hpresil[compress]'"
)

SEED = 20261123
State = tuple[list[Block], list[Any]]


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes were compressed at each try."""
    seen: list[int] = []

    class Counting:
        def __init__(self, level: int) -> None:
            self._compressor = zstandard.ZstdCompressor(level=level)

        def compress(self, data: Any) -> bytes:
            seen.append(memoryview(data).nbytes)
            return self._compressor.compress(data)

    counted = SimpleNamespace(**{**vars(zstandard), "ZstdCompressor": Counting})
    monkeypatch.setattr(codec, "_library", lambda: counted)
    return seen


def weights(count: int, nbytes: int, seed: int = SEED) -> State:
    """Blocks of fp32 weights, and what they were one step before."""
    rng = np.random.default_rng(seed)
    old = rng.normal(0, 0.02, (count, nbytes // 4)).astype(np.float32)
    new = old + rng.normal(0, 2e-5, old.shape).astype(np.float32)
    return [Block(one.tobytes(), 4) for one in new], [one.tobytes() for one in old]


def noise(count: int, nbytes: int) -> State:
    rng = np.random.default_rng(SEED)
    return [Block(rng.bytes(nbytes), 4) for _ in range(count)], [rng.bytes(nbytes) for _ in range(count)]


def ways(encoded: bytes) -> list[Way]:
    return [entry.way for entry in read_head(memoryview(encoded), 1 << 30)]


def by_themselves(state: State) -> int:
    """Return the bytes that are stored when each block is judged by itself."""
    alone = [encode([block], [old]) for block, old in zip(*state, strict=True)]
    return sum(len(one) - HEADER_BYTES for one in alone) + HEADER_BYTES


def check(encoded: bytes, state: State) -> None:
    blocks, old = state
    found = decode(encoded, old, limit_bytes=sum(len(block.data) for block in blocks))
    assert [bytes(one) for one in found] == [block.data for block in blocks]


def test_blocks_of_one_kind_are_tried_once_each_and_a_sample_of_every_run_in_four_ways(
    tries: list[int],
) -> None:
    state = weights(4 * RUN_BLOCKS, 4096)
    encoded = encode(*state)
    assert len(tries) == 4 * RUN_BLOCKS + 4 * 4
    assert sum(tries) == 4 * RUN_BLOCKS * 4096 + 4 * 4 * 16384
    assert set(ways(encoded)) == {Way.PACKED | Way.PLANES | Way.DELTA}
    assert len(encoded) == by_themselves(state)


def test_blocks_that_do_not_shrink_are_not_tried_at_all(tries: list[int]) -> None:
    blocks, old = noise(2 * RUN_BLOCKS, 4096)
    encoded = encode(blocks, old)
    assert tries == [16384] * 8
    assert len(encoded) == HEADER_BYTES + len(blocks) * (ENTRY_BYTES + 4096)


@pytest.mark.parametrize("place", [0, 7, RUN_BLOCKS - 1])
def test_a_block_that_is_unlike_its_run_goes_its_own_way(tries: list[int], place: int) -> None:
    """The version before has nothing to do with it, so the way of the others would make noise of it."""
    blocks, old = weights(RUN_BLOCKS, 8192)
    old[place] = np.random.default_rng(SEED).bytes(8192)
    encoded = encode(blocks, old)
    assert len(tries) == 4 + RUN_BLOCKS + 4 + 1
    found = ways(encoded)
    own = found.pop(place)
    assert own in (Way.PACKED, Way.PACKED | Way.PLANES)
    assert [own] == ways(encode(blocks[place : place + 1], old[place : place + 1]))
    assert set(found) == {Way.PACKED | Way.PLANES | Way.DELTA}
    assert len(encoded) == by_themselves((blocks, old))
    check(encoded, (blocks, old))


@pytest.mark.parametrize("seed", range(SEED, SEED + 10))
def test_a_mixed_state_is_hardly_larger_than_with_each_block_judged_by_itself(seed: int) -> None:
    chance = np.random.default_rng(seed)
    blocks, old = [], []
    for number in range(100):
        nbytes = int(chance.choice([4, 40, 256, 1000, 4096, 12_288, 65_536, SMALL_BYTES, SMALL_BYTES + 4]))
        (block,), (before,) = (weights, noise)[number % 7 == 0](1, nbytes // 4 * 4)
        how = chance.integers(0, 5)
        blocks.append(Block(bytes(nbytes // 4 * 4), 4) if how == 0 else block)
        old.append([None, block.data, before, before, before][chance.integers(0, 5)])
    encoded = encode(blocks, old)
    check(encoded, (blocks, old))
    assert len(encoded) <= 1.02 * by_themselves((blocks, old)), f"seed {seed}"


def test_what_is_judged_together_is_small_and_of_one_kind() -> None:
    sizes = [100, SMALL_BYTES, SMALL_BYTES + 1, 100, 0]
    pieces = [
        Piece(number, np.zeros(sizes[number % 5], np.uint8), element_bytes, old)
        for number in range(200)
        for element_bytes in (2, 4)
        for old in (None, np.zeros(sizes[number % 5], np.uint8))
    ]
    found = runs(pieces)
    assert sum(map(len, found)) == len(pieces)
    assert max(map(len, found)) == RUN_BLOCKS
    for run in found:
        assert len({(piece.element_bytes, piece.old is None) for piece in run}) == 1
        assert len(run) == 1 or all(piece.data.nbytes <= SMALL_BYTES for piece in run)
        assert [piece.number for piece in run] == sorted(piece.number for piece in run)


@pytest.mark.parametrize("element_bytes", [1, 2, 4, 8])
@pytest.mark.parametrize("most", [256, 1024, 4096, 16384])
@pytest.mark.parametrize("nbytes", [0, 1, 7, 255, 1025, 16_385, 50_001])
def test_a_sample_has_whole_elements_and_no_more_bytes_than_it_may(
    nbytes: int, most: int, element_bytes: int
) -> None:
    data = np.arange(nbytes, dtype=np.uint32).astype(np.uint8)
    few = codec_judgement._sample(data, element_bytes, most)
    assert few.nbytes <= min(nbytes, most)
    assert few.nbytes % element_bytes == 0
    assert few.nbytes >= min(nbytes, most) - 4 * (element_bytes - 1)


def test_many_small_blocks_are_equal_for_any_number_of_threads() -> None:
    state = weights(5 * RUN_BLOCKS + 3, 2048)
    assert encode(*state) == encode(*state, threads=3)
