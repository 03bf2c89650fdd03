"""What a slot's microbatch consists of, for the three kinds of data a script may pass.

Problem: a microbatch must be a function of (seed, step, slot, j) alone, whoever computes it, however
often, at any world size, or a moved slot would not see the same samples.

Design: positions of the data order are dealt out in the order step, slot, microbatch, sample:
``p = ((step * slots + slot) * microbatches + j) * microbatch_size + m``; the order (hpresil.data.order)
says which sample stands there. A function ``(step, slot, j) -> batch`` is its own order; its ids count
its calls. No state is kept, so there is nothing to save and nothing to fast-forward.

What was consumed is shown by digests: 48 bits a slot, which travel exactly in a float64 next to the other
statistics of the step, and one digest over the slots in ascending order for the record.

Not guaranteed: a data set whose length or content changes, or a function that does not depend on its
arguments alone, gives other samples after a restart; only the ids are compared.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate

from hpresil.base.errors import DataError, UsageError
from hpresil.data.order import sample_index
from hpresil.data.tokens import TokenDataset

WHAT_TO_PASS = (
    "pass a hpresil.TokenDataset, a map-style torch Dataset (with __getitem__ and __len__), "
    "or a function (step, slot, j) -> batch"
)


class Batch(NamedTuple):
    """Inputs and targets of one microbatch; what a data set of pairs is collated into."""

    inputs: Any
    targets: Any


def size_of(data: object) -> int | None:
    """Return how many samples ``data`` has, None for a function.

    Raises:
        UsageError: ``data`` is of a kind that cannot be read at any position.
        DataError: It has no samples.
    """
    kind = type(data).__name__
    if isinstance(data, type):
        raise UsageError(f"microbatches() got the class {data.__name__}; pass an instance of it")
    if isinstance(data, DataLoader):
        raise UsageError(
            "microbatches() got a DataLoader, which has an order of its own; pass its data set "
            "(loader.dataset) and set the batch size with microbatch_size"
        )
    if isinstance(data, IterableDataset):
        raise UsageError(
            f"microbatches() got the iterable data set {kind}, which has no positions; {WHAT_TO_PASS}"
        )
    if hasattr(data, "__getitem__") and not isinstance(data, str | bytes):
        try:
            size = len(data)  # type: ignore[arg-type]
        except (TypeError, NotImplementedError) as error:
            raise UsageError(f"the data set {kind} has no __len__; add one, or {WHAT_TO_PASS}") from error
        if size < 1:
            raise DataError(f"the data set {kind} is empty; it needs at least one sample")
        return size
    if callable(data):
        return None
    raise UsageError(f"microbatches() cannot read from {kind}; {WHAT_TO_PASS}")


def microbatch(
    data: object,
    *,
    step: int,
    slot: int,
    j: int,
    slots: int,
    microbatches: int,
    microbatch_size: int,
    seed: int,
    device: torch.device | str,
) -> tuple[list[int], object]:
    """Return the ids and the batch of microbatch ``j`` of ``slot`` in ``step``, on ``device``.

    The ids are sample indices, or for a function the number of its call. A data set of pairs gives a
    `Batch`; any other what torch's ``default_collate`` makes of its samples; a function what it returns.

    Raises:
        UsageError: As `size_of`, or the function returned None.
        DataError: The data set is empty, its ``__getitem__`` raised (the message names the sample), or
            its samples cannot be put together.
    """
    size = size_of(data)
    turn = (step * slots + slot) * microbatches + j
    if size is None:
        batch = data(step, slot, j)  # type: ignore[operator]
        if batch is None:
            raise UsageError(f"the data function returned None for step {step}, slot {slot}, j {j}")
        return [turn], _moved(batch, device)
    begin = turn * microbatch_size
    ids = [sample_index(position, size, seed) for position in range(begin, begin + microbatch_size)]
    batch = Batch(*data.batch(ids)) if type(data) is TokenDataset else _collated(data, ids)
    return ids, _moved(batch, device)


def expected_ids(
    size: int | None, *, step: int, slot: int, slots: int, microbatches: int, microbatch_size: int, seed: int
) -> list[int]:
    """Return the ids of all microbatches of ``slot`` in ``step``, in order; ``size`` as of `size_of`."""
    begin = (step * slots + slot) * microbatches
    turns = range(begin, begin + microbatches)
    if size is None:
        return list(turns)
    positions = range(begin * microbatch_size, turns.stop * microbatch_size)
    return [sample_index(position, size, seed) for position in positions]


def slot_hash(ids: Sequence[int]) -> int:
    """Return 48 bits that depend on the ids and their order; exact as a float64."""
    packed = struct.pack(f"<{len(ids)}Q", *ids)
    return int.from_bytes(hashlib.blake2b(packed, digest_size=6).digest(), "little")


def digest_hashes(hashes: Sequence[int]) -> str:
    """Return 32 hex digits that depend on the slots' hashes, given in ascending slot order."""
    packed = struct.pack(f"<{len(hashes)}Q", *hashes)
    return hashlib.blake2b(packed, digest_size=16).hexdigest()


def digest(ids_per_slot: Sequence[Sequence[int]]) -> str:
    """Return the digest of one step from the ids of each slot, in ascending slot order."""
    return digest_hashes([slot_hash(ids) for ids in ids_per_slot])


def _collated(data: Any, ids: list[int]) -> Any:
    samples = []
    for index in ids:
        try:
            samples.append(data[index])
        except MemoryError:
            raise
        except Exception as error:
            what = f"{type(error).__name__}: {error}"
            raise DataError(f"sample {index} of {type(data).__name__} cannot be read: {what}") from error
    pairs = all(type(sample) in (tuple, list) and len(sample) == 2 for sample in samples)
    try:
        batch = default_collate(samples)
    except (TypeError, RuntimeError, KeyError) as error:
        raise DataError(
            f"samples {ids} of {type(data).__name__} cannot be put into one batch: {error}; give all samples "
            f"the same shape, or pass a function (step, slot, j) -> batch"
        ) from error
    return Batch(*batch) if pairs else batch


def _moved(batch: Any, device: torch.device | str) -> Any:
    """Return ``batch`` with every tensor in its nested containers on ``device``."""
    if hasattr(batch, "to") and callable(batch.to):
        return batch.to(device)
    if isinstance(batch, Mapping):
        moved = {name: _moved(value, device) for name, value in batch.items()}
        if isinstance(batch, MutableMapping):
            same = copy(batch)  # a subclass keeps what else it holds, as a defaultdict its factory
            same.update(moved)
            return same
        return moved
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_moved(value, device) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(_moved(value, device) for value in batch)
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(
            batch, **{f.name: _moved(getattr(batch, f.name), device) for f in fields(batch) if f.init}
        )
    return batch
