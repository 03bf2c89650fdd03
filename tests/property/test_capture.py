"""Invariant: what is captured comes back bit for bit, for any values and tensors, by every road."""

import math
import os
import struct
from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from hpresil import native
from hpresil.checkpoint import saved
from hpresil.snapshot import filling, frame
from hpresil.snapshot.arrays import Arrays
from hpresil.snapshot.snapshots import Snapshots
from hpresil.snapshot.tracked import Tracked
from hpresil.snapshot.values import decode, encode

FEW = settings(max_examples=60, deadline=None, derandomize=True)


def bits(value):
    return struct.pack("<d", value)


floats = st.integers(0, 2**64 - 1).map(lambda i: struct.unpack("<d", struct.pack("<Q", i))[0])
hashable = st.one_of(
    st.none(), st.booleans(), st.integers(), st.text(), st.binary(), st.tuples(st.integers())
)
scalars = st.one_of(hashable, floats, st.builds(complex, floats, floats), st.text(st.characters(codec=None)))
values = st.recursive(
    st.one_of(scalars, st.frozensets(hashable), st.sets(hashable), hnp.arrays(hnp.scalar_dtypes(), (2, 3))),
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(hashable, inner),
        st.dictionaries(hashable, inner).map(OrderedDict),
    ),
    max_leaves=12,
)


def same(one, two):
    """Equality of type, order and bits: unlike ==, NaNs are equal to themselves and 0.0 differs from -0.0."""
    if type(one) is not type(two):
        return False
    if isinstance(one, float):
        return bits(one) == bits(two)
    if isinstance(one, complex):
        return bits(one.real) == bits(two.real) and bits(one.imag) == bits(two.imag)
    if isinstance(one, dict):
        return len(one) == len(two) and all(
            same(a, b) and same(one[a], two[b]) for a, b in zip(one, two, strict=True)
        )
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if hasattr(one, "tobytes"):
        return one.dtype.str == two.dtype.str and one.shape == two.shape and one.tobytes() == two.tobytes()
    return one == two


def refuse(tensor, path):
    raise AssertionError(path)


@FEW
@given(values)
def test_any_value_comes_back(value):
    data = encode(value, "value", refuse)
    assert same(decode(data, refuse), value)
    assert encode(decode(data, refuse), "value", refuse) == data


DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.uint16,
]  # fmt: skip


@st.composite
def tensors(draw):
    """A tensor of any dtype and up to three dimensions, possibly empty, with its dimensions permuted."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 5), max_size=3))
    order = draw(st.permutations(range(len(shape))))
    size = math.prod(shape) * dtype.itemsize
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    top = 2 if dtype == torch.bool else 256
    raw = torch.randint(0, top, (size,), dtype=torch.uint8, generator=generator)
    return (
        raw.view(dtype).reshape(shape).permute(order)
        if size
        else torch.empty(shape, dtype=dtype).permute(order)
    )


class Holding:
    def __init__(self, content):
        self.content = content

    def state_dict(self):
        return {"content": self.content}

    def load_state_dict(self, state):
        self.content = state["content"]


def objects(buffers, blank):
    model = torch.nn.Linear(2, 2)
    for i, tensor in enumerate(buffers):
        model.register_buffer(f"b{i}", torch.zeros_like(tensor) if blank else tensor)
    return Tracked({"model": model, "thing": Holding([] if blank else list(buffers))})


@FEW
@given(st.lists(tensors(), max_size=5))
def test_any_tensors_travel_through_a_frame(buffers):
    source, target = objects(buffers, False), objects(buffers, True)
    state = source.capture()
    fd = native.memfd("frame", filling.size(state))
    try:
        filling.fill(fd, state, version=5, threads=2)
        assert frame.restore(fd, target, version=5) == (5, state.nbytes)
    finally:
        os.close(fd)
    assert target.digest() == source.digest() == state.digest()


@FEW
@given(st.lists(tensors(), min_size=1, max_size=5), st.integers(0, 2), st.booleans())
def test_any_tensors_travel_through_a_snapshot(buffers, threads, as_arrays):
    named = {f"t{i}": tensor for i, tensor in enumerate(buffers)}
    objects = named if as_arrays else {"model": torch.nn.Linear(3, 2), "thing": Holding(list(buffers))}
    source = Arrays(named) if as_arrays else Tracked(objects)
    before = source.capture().digest()
    with Snapshots(objects, threads=threads) as snapshots:
        snapshots.begin(1)
        snapshots.wait()
        for tensor in buffers:
            tensor.zero_()
        assert snapshots.restore() == 1
    assert source.capture().digest() == before


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@settings(parent=FEW, max_examples=25)
@given(buffers=st.lists(tensors(), max_size=5))
def test_any_tensors_travel_through_a_checkpoint(directory, buffers):
    source, target = objects(buffers, False), objects(buffers, True)
    version, state, _ = saved.load(saved.save(directory, source.capture(), version=5, identity={}))
    target.restore(state)
    assert version == 5
    assert target.digest() == source.digest() == state.digest()
