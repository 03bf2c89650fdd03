"""Microbatches of the three kinds of data, their ids and digests."""

import collections
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from hpresil.base.errors import DataError, UsageError
from hpresil.data.order import sample_index
from hpresil.data.source import (
    Batch,
    digest,
    digest_hashes,
    expected_ids,
    microbatch,
    size_of,
    slot_hash,
)
from hpresil.data.tokens import TokenDataset
from hpresil.data.writer import TokenWriter

JOB = {"slots": 4, "microbatches": 2, "microbatch_size": 3, "seed": 9}
PLACE = {"step": 5, "slot": 2, "j": 1, **JOB, "device": "cpu"}


class Squares(Dataset):
    def __init__(self, size=100):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.tensor(index), torch.tensor(index**2)


@pytest.fixture
def tokens(tmp_path):
    with TokenWriter(tmp_path / "c", vocabulary=1000) as writer:
        writer.append(np.arange(1000))
    return TokenDataset(tmp_path / "c", seq_len=8)


def test_the_ids_are_the_samples_at_the_positions_of_the_place():
    ids, _ = microbatch(Squares(), **PLACE)
    first = ((5 * 4 + 2) * 2 + 1) * 3
    assert ids == [sample_index(p, 100, 9) for p in range(first, first + 3)]


def test_a_data_set_of_pairs_gives_inputs_and_targets():
    ids, batch = microbatch(Squares(), **PLACE)
    assert isinstance(batch, Batch)
    assert batch.inputs.tolist() == ids
    assert batch.targets.tolist() == [i**2 for i in ids]


def test_a_token_data_set_and_a_view_of_it_give_the_same_batches(tokens):
    ids, batch = microbatch(tokens, **PLACE)
    viewed, same = microbatch(Subset(tokens, range(len(tokens))), **PLACE)
    assert ids == viewed
    assert torch.equal(batch.inputs, same.inputs)
    assert torch.equal(batch.targets, same.targets)
    assert batch.inputs.shape == (3, 8)


def test_a_token_data_set_with_samples_of_its_own_keeps_them(tokens):
    class Doubled(TokenDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)[0] * 2

    ids, batch = microbatch(Doubled(tokens.path, 8), **PLACE)
    assert torch.equal(batch, tokens.batch(ids)[0] * 2)


def test_samples_of_other_kinds_are_collated_as_torch_does():
    rows = [{"x": torch.tensor(i), "name": str(i)} for i in range(20)]
    ids, batch = microbatch(rows, **PLACE)
    assert batch["x"].tolist() == ids
    assert batch["name"] == [str(i) for i in ids]
    _, batch = microbatch(TensorDataset(torch.arange(20)), **PLACE)
    assert type(batch) is list
    _, batch = microbatch(torch.arange(20), **PLACE)
    assert batch.shape == (3,)


def test_a_function_is_called_with_its_place_and_counted():
    calls = []

    def batch(step, slot, j):
        calls.append((step, slot, j))
        return torch.tensor([step, slot, j])

    ids, got = microbatch(batch, **PLACE)
    assert (calls, ids, got.tolist()) == ([(5, 2, 1)], [(5 * 4 + 2) * 2 + 1], [5, 2, 1])


def test_what_a_function_raises_reaches_the_user_unchanged():
    def broken(step, slot, j):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match=r"^mine$"):
        microbatch(broken, **PLACE)


def test_a_function_that_returns_nothing_is_refused():
    with pytest.raises(UsageError, match="returned None for step 5, slot 2, j 1"):
        microbatch(lambda step, slot, j: None, **PLACE)


def test_tensors_in_nested_containers_move_to_the_device():
    pair = collections.namedtuple("pair", "a b")

    @dataclasses.dataclass
    class Parts:
        x: torch.Tensor
        note: str

    t = torch.ones(2)
    nested = {"l": [t, (t, pair(t, 7))], "d": collections.OrderedDict(k=t), "p": Parts(t, "n"), "s": "text"}
    nested["c"] = collections.defaultdict(list, k=t)
    _, moved = microbatch(lambda step, slot, j: nested, **{**PLACE, "device": "meta"})
    inner = moved["l"][1][1]
    places = [moved["l"][0], moved["l"][1][0], inner.a, moved["d"]["k"], moved["p"].x, moved["c"]["k"]]
    assert {place.device.type for place in places} == {"meta"}
    assert (type(inner), inner.b, moved["p"].note, moved["s"]) == (pair, 7, "n", "text")
    assert type(moved["d"]) is collections.OrderedDict
    assert moved["c"].default_factory is list
    assert nested["c"]["k"].device.type == "cpu"


def test_the_expected_ids_are_those_of_the_microbatches():
    for data, size in ((Squares(7), 7), (lambda step, slot, j: torch.zeros(1), None)):
        assert size_of(data) == size
        got = [i for j in range(2) for i in microbatch(data, **{**PLACE, "j": j})[0]]
        assert got == expected_ids(size, step=5, slot=2, **JOB)


def test_a_sample_that_cannot_be_read_is_named_with_its_cause():
    class Broken(Squares):
        def __getitem__(self, index):
            raise OSError(f"no row {index}")

    first = expected_ids(100, step=5, slot=2, **JOB)[3]
    with pytest.raises(
        DataError, match=f"sample {first} of Broken cannot be read: OSError: no row"
    ) as caught:
        microbatch(Broken(), **PLACE)
    assert isinstance(caught.value.__cause__, OSError)


def test_memory_that_runs_out_in_a_sample_stays_a_memory_error():
    class Greedy(Squares):
        def __getitem__(self, index):
            raise MemoryError

    with pytest.raises(MemoryError):
        microbatch(Greedy(), **PLACE)


def test_samples_that_do_not_fit_together_are_named():
    class Ragged(Squares):
        def __getitem__(self, index):
            return torch.zeros(index)

    with pytest.raises(DataError, match=r"samples \[.*\] of Ragged cannot be put into one batch"):
        microbatch(Ragged(), **PLACE)


class Stream(IterableDataset):
    def __iter__(self):
        return iter(())


class Endless(Dataset):
    def __getitem__(self, index):
        return index


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (Stream(), "iterable data set Stream, which has no positions; pass a hpresil.TokenDataset"),
        (
            DataLoader(Squares()),
            r"DataLoader, which has an order of its own; pass its data set \(loader.dataset\)",
        ),
        (Endless(), "Endless has no __len__; add one"),
        (Squares, "the class Squares; pass an instance"),
        (iter([1]), "cannot read from list_iterator; pass a hpresil.TokenDataset"),
        ("corpus", "cannot read from str; pass a hpresil.TokenDataset"),
        (Path("corpus"), "cannot read from PosixPath"),
        (None, "cannot read from NoneType"),
    ],
)
def test_data_without_positions_is_refused_with_what_to_pass_instead(data, why):
    with pytest.raises(UsageError, match=why):
        microbatch(data, **PLACE)


@pytest.mark.parametrize("data", [Squares(0), []])
def test_an_empty_data_set_is_refused(data):
    with pytest.raises(DataError, match="is empty; it needs at least one sample"):
        microbatch(data, **PLACE)


def test_a_slot_hash_travels_exactly_in_a_float64():
    hashes = [slot_hash([i, i + 1]) for i in range(200)]
    assert len(set(hashes)) == 200
    assert all(0 <= h < 2**48 and int(float(h)) == h for h in hashes)


def test_digests_depend_on_ids_order_and_slots():
    different = [[[1, 2], [3]], [[2, 1], [3]], [[1], [2, 3]], [[3], [1, 2]], [[1, 2, 3]], [[1, 2], [3], []]]
    digests = [digest(ids) for ids in different]
    assert len(set(digests)) == len(different)
    assert all(len(bytes.fromhex(d)) == 16 for d in digests)
    assert digest([[1, 2], [3]]) == digest_hashes([slot_hash([1, 2]), slot_hash([3])])


def test_digests_are_pinned():
    """Records of different releases stay comparable."""
    assert digest([[0, 1, 2**63], [5]]) == "8c728897265dc1b6ecca835d45bec1ad"
