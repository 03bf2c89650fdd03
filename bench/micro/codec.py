"""What compression does to training state: ratio and speed by library, delta and byte planes.

    python -m bench micro codec

State comes from a small model that is trained here (training_state.py). Each contender packs blocks of 1
MiB as the codec does: exclusive or with the version before, byte planes, the library's compression; its
speed includes all of that, in bytes of state. The floor is one copy of the same bytes in memory, with as
many threads. Libraries that are not installed are said to be missing.

Small tensors are the same state in blocks of a few KiB: what the codec's judgement of several at once costs,
beside that of each by itself, and beside delta, planes and zstd 1 without any judgement and checksum.
"""

from __future__ import annotations

import importlib
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
from bench import rows as figures
from bench.micro import training_state

from hpresil import native
from hpresil.checkpoint import codec, codec_judgement

BLOCK = 1 << 20
SMALL = (1 << 12, 1 << 14, 1 << 16)
SUITE = "micro"
Spent = dict[str, list[figures.Call]]
Compress, Decompress = Callable[[bytes], bytes], Callable[[bytes, int], bytes]


class Library(NamedTuple):
    name: str
    compress: Compress
    decompress: Decompress


class Piece(NamedTuple):
    element_bytes: int
    new: np.ndarray
    old: np.ndarray


def libraries() -> Iterator[Library | tuple[str, str]]:
    """Yield what is installed, and (name, why) for what is not."""
    for module, makers in {"zstandard": zstd, "lz4.block": lz4, "blosc2": blosc2}.items():
        try:
            yield from makers(importlib.import_module(module))
        except ImportError as error:
            yield module, f"{error}; pip install {module.partition('.')[0]}"


def zstd(module) -> Iterator[Library]:
    for level in (1, 3):
        yield Library(
            f"zstd {level}",
            lambda data, level=level: module.ZstdCompressor(level=level).compress(data),
            lambda data, size: module.ZstdDecompressor().decompress(data, max_output_size=size),
        )


def lz4(module) -> Iterator[Library]:
    yield Library(
        "lz4",
        lambda data: module.compress(data, store_size=False),
        lambda data, size: module.decompress(data, uncompressed_size=size),
    )


def blosc2(module) -> Iterator[Library]:
    """Without its own shuffle, so that all get the same bytes; one thread, as blocks are spread here."""
    module.set_nthreads(1)
    for name, kind in (("lz4", module.Codec.LZ4), ("zstd", module.Codec.ZSTD)):
        yield Library(
            f"blosc2 {name} 1",
            partial(module.compress2, codec=kind, clevel=1, filters=[module.Filter.NOFILTER],
            filters_meta=[0],
                    typesize=1, nthreads=1),
            lambda data, size: module.decompress2(data),
        )  # fmt: skip


def pieces(case: training_state.Case, later: bool, limit: int, block: int = BLOCK) -> list[Piece]:
    """Return blocks of the state in its order, drawn at random, at most about ``limit`` bytes."""
    found = []
    for (size, old), (_, new) in zip(case.before, case.later if later else case.next, strict=True):
        found += [Piece(size, new[at : at + block], old[at : at + block]) for at in range(0, len(new), block)]
    total = sum(piece.new.nbytes for piece in found)
    count = min(len(found), round(len(found) * limit / total))
    return [found[i] for i in sorted(random.Random(0).sample(range(len(found)), count))]


def pack(piece: Piece, delta: bool, planes: bool, compress: Compress) -> bytes:
    held = piece.new
    if delta:
        changed = np.empty_like(held)
        native.xor_delta(changed.ctypes.data, held.ctypes.data, piece.old.ctypes.data, held.nbytes)
        held = changed
    if planes and piece.element_bytes > 1:
        apart = np.empty_like(held)
        native.shuffle(apart.ctypes.data, held.ctypes.data, held.nbytes, piece.element_bytes)
        held = apart
    return compress(held.tobytes())


def unpack(piece: Piece, delta: bool, planes: bool, packed: bytes, decompress: Decompress) -> np.ndarray:
    held = np.frombuffer(decompress(packed, piece.new.nbytes), np.uint8)
    out = np.empty_like(held)
    if planes and piece.element_bytes > 1:
        native.unshuffle(out.ctypes.data, held.ctypes.data, held.nbytes, piece.element_bytes)
        held = out
    if delta:
        native.xor_delta(out.ctypes.data, held.ctypes.data, piece.old.ctypes.data, held.nbytes)
        held = out
    return held


def all_of(pool: ThreadPoolExecutor | None, work: Callable, *lists: Sequence) -> list:
    return list((pool.map if pool else map)(work, *lists))


def measure(
    name: str, part: list[Piece], pipeline: tuple[bool, bool], library: Library, threads: int, runs: int
):
    """Yield the ratio, and the speed of packing and unpacking with that of a copy as the floor."""
    delta, planes = pipeline
    pool = ThreadPoolExecutor(threads) if threads > 1 else None
    nbytes = sum(piece.new.nbytes for piece in part)
    packed = [pack(piece, delta, planes, library.compress) for piece in part]
    for piece, one in zip(part, packed, strict=True):
        assert np.array_equal(unpack(piece, delta, planes, one, library.decompress), piece.new), name
    spent = figures.calls_in_turns(
        {
            "copy": lambda: all_of(pool, lambda piece: piece.new.copy(), part),
            "pack": lambda: all_of(pool, lambda piece: pack(piece, delta, planes, library.compress), part),
            "unpack": lambda: all_of(
                pool, lambda piece, one: unpack(piece, delta, planes, one, library.decompress), part, packed
            ),
        },
        repeats=runs,
    )
    if pool:
        pool.shutdown()
    how = "+".join(word for word, used in (("delta", delta), ("planes", planes)) if used) or "plain"
    contender = f"{how}, {library.name}, {threads} thread{'s' if threads > 1 else ''}"
    yield from rated(name, contender, nbytes / sum(map(len, packed)), nbytes, spent)


def rated(name: str, contender: str, ratio: float, nbytes: int, spent: Spent) -> Iterator[figures.Row]:
    yield packed_ratio(name, contender, ratio)
    for which, by in enumerate(figures.BY_TIMES):
        rate = {key: [nbytes / 1e9 / one[which] for one in each] for key, each in spent.items()}
        floor = statistics.median(rate["copy"])
        for metric in ("pack", "unpack"):
            figure = {"metric": f"{metric}{by}", "figures": rate[metric]}
            yield figures.row(SUITE, name, contender, unit="GB/s", floor=floor, **figure)


def packed_ratio(name: str, contender: str, ratio: float) -> figures.Row:
    """Return the row of the size before over that of the packed blocks."""
    return figures.row(SUITE, name, contender, metric="ratio", unit="ratio_up", figures=[ratio])


def changed(case: training_state.Case) -> Iterator[figures.Row]:
    """Yield how much of the state one step and ten steps left exactly as it was."""
    for name, after in (("1 step after", case.next), ("10 steps after", case.later)):
        same = total = 0
        for (size, old), (_, new) in zip(case.before, after, strict=True):
            same += int((old.reshape(-1, size) == new.reshape(-1, size)).all(1).sum()) * size
            total += new.nbytes
        share = [same / total]
        yield figures.row(
            SUITE, f"{case.name}, {name}", "state", metric="unchanged bytes", unit="1", figures=share
        )


def ours(case: training_state.Case, later: bool, limit: int, runs: int) -> Iterator[figures.Row]:
    """Yield the figures of the codec itself, which chooses for each block."""
    part = pieces(case, later, limit)
    name = f"{case.name}, {'10 steps' if later else '1 step'} after"
    nbytes = sum(piece.new.nbytes for piece in part)
    blocks, old = (
        [codec.Block(piece.new, piece.element_bytes) for piece in part],
        [piece.old for piece in part],
    )
    packed = codec.encode(blocks, old)
    spent = figures.calls_in_turns(
        {
            "copy": lambda: all_of(None, lambda piece: piece.new.copy(), part),
            "pack": lambda: codec.encode(blocks, old),
            "unpack": lambda: codec.decode(packed, old, limit_bytes=nbytes),
        },
        repeats=runs,
    )
    yield from rated(name, "hpresil, 1 thread", nbytes / len(packed), nbytes, spent)


def judged_one_by_one(blocks: list[codec.Block], old: list[np.ndarray]) -> bytes:
    before, codec_judgement.RUN_BLOCKS = codec_judgement.RUN_BLOCKS, 1
    try:
        return codec.encode(blocks, old)
    finally:
        codec_judgement.RUN_BLOCKS = before


def small(case: training_state.Case, limit: int, runs: int) -> Iterator[figures.Row]:
    """Yield what packing small blocks costs, by how they are judged; the peer judges nothing."""
    compress = next(zstd(importlib.import_module("zstandard"))).compress
    for block in SMALL:
        part = pieces(case, False, limit, block)
        nbytes = sum(piece.new.nbytes for piece in part)
        blocks = [codec.Block(piece.new, piece.element_bytes) for piece in part]
        old = [piece.old for piece in part]
        ways: dict[str, Callable[[], Sequence[bytes]]] = {
            "hpresil, 1 thread": partial(lambda *given: [codec.encode(*given)], blocks, old),
            "hpresil, each block judged by itself": partial(
                lambda *given: [judged_one_by_one(*given)], blocks, old
            ),
            "delta+planes, zstd 1": partial(
                lambda part: [pack(piece, True, True, compress) for piece in part], part
            ),
        }
        spent = figures.calls_in_turns(ways, repeats=runs)
        peer = statistics.median(nbytes / 1e9 / one.processor_s for one in spent["delta+planes, zstd 1"])
        name = f"{case.name}, 1 step after, blocks of {block >> 10} KiB"
        for contender, way in ways.items():
            yield packed_ratio(name, contender, nbytes / sum(map(len, way())))
            rates = [nbytes / 1e9 / one.processor_s for one in spent[contender]]
            metric = f"pack{figures.BY_TIMES[1]}"
            yield figures.row(SUITE, name, contender, metric=metric, unit="GB/s", figures=rates, peer=peer)


def rows(quick: bool) -> Iterator[figures.Row]:
    limit, runs, steps = (1 << 20, 2, 5) if quick else (1 << 23, 5, 200)
    pipelines = [(False, False), (False, True), (True, False), (True, True)]
    for case in training_state.cases(steps):
        yield from changed(case)
        yield from small(case, limit // 4, runs)
        for later in (False, True):
            yield from ours(case, later, limit, runs)
        for library in libraries():
            if not isinstance(library, Library):
                yield figures.missing(SUITE, case.name, library[0], "ratio", "ratio_up", why=library[1])
                continue
            for later in (False, True):
                part = pieces(case, later, limit)
                name = f"{case.name}, {'10 steps' if later else '1 step'} after"
                for pipeline in pipelines:
                    if later and pipeline != (True, True):
                        continue
                    for threads in (1, 2) if pipeline == (True, True) and not later else (1,):
                        yield from measure(name, part, pipeline, library, threads, runs)
