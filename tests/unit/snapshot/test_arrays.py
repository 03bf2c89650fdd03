"""Arrays of any kind are read and written where they lie, or refused with what to do."""

import array
import gc
import os

import numpy as np
import pytest
import torch

from hpresil.base.errors import ConfigError, Refused
from hpresil.snapshot.arrays import Arrays, as_tensor
from hpresil.snapshot.snapshots import Snapshots

SUB_BYTE = ["uint4", "int4", "uint1", "bits1x8", "bits4x2", "float4_e2m1fn_x2", "float8_e4m3fn"]


class ThroughDlpack:
    """What another library shows of its memory."""

    def __init__(self, tensor):
        self._tensor = tensor

    def __dlpack__(self, **_):
        return self._tensor.__dlpack__()

    def __dlpack_device__(self):
        return self._tensor.__dlpack_device__()


def everything():
    raw = torch.arange(8, dtype=torch.uint8)
    return {
        "torch": torch.arange(5.0),
        "scalar": torch.tensor(3.5),
        "empty": torch.empty(0, 3),
        "strided": torch.arange(12.0).reshape(3, 4).t(),
        "complex": torch.arange(3).to(torch.complex64),
        "numpy": np.arange(6, dtype=np.int16).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        "zero-d": np.array(7, dtype=np.uint32),
        "bytes": bytearray(b"hello"),
        "doubles": array.array("d", [1.0, 2.0]),
        "dlpack": ThroughDlpack(torch.arange(4, dtype=torch.int32)),
        **{name: raw.clone().view(getattr(torch, name)) for name in SUB_BYTE},
    }


def bits(arrays):
    return {name: bytes(raw_bytes(name, one)) for name, one in arrays.items()}


def raw_bytes(name, one):
    tensor = as_tensor(name, one).contiguous()
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def test_arrays_of_every_kind_come_back_in_place():
    arrays = everything()
    before = bits(arrays)
    with Snapshots(arrays, threads=1) as snapshots:
        snapshots.begin(1)
        snapshots.wait()
        for name, one in arrays.items():
            memory = as_tensor(name, one)
            if memory.numel():
                memory.view(torch.uint8 if memory.element_size() == 1 else memory.dtype).zero_()
        assert bits(arrays) != before
        assert snapshots.restore() == 1
    assert bits(arrays) == before
    assert arrays["numpy"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert arrays["bytes"] == b"hello"
    gc.collect()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: b"constant", "read-only.*bytearray"),
        (lambda: np.broadcast_to(np.zeros(1), (3,)), "read-only"),
        (lambda: np.arange(4)[::-1], "negative strides"),
        (lambda: np.zeros(2, dtype=">f4"), "native byte order"),
        (lambda: np.array(["a"]), r"array\.view\('u1'\)"),
        (lambda: np.zeros(2, dtype="datetime64[s]"), r"array\.view\('u1'\)"),
        (lambda: np.zeros(2, dtype=[("a", "f4")]), "cannot be seen as a torch tensor"),
        (lambda: torch.zeros(1).expand(3), "repeats elements.*give a copy"),
        (lambda: torch.zeros(3).to_sparse(), "sparse"),
        (lambda: torch.zeros(3, device="meta"), "meta device"),
    ],
)
def test_what_cannot_come_back_is_refused_with_what_to_do(made, message):
    with pytest.raises(ConfigError, match=message):
        Arrays({"it": made()})


def test_other_arrays_are_refused_and_nothing_changes():
    mine = {"a": np.zeros(3), "b": np.ones(2)}
    with Snapshots(mine, threads=0) as snapshots:
        snapshots.begin(0)
        snapshots.wait()
        state = Arrays(mine).capture()
        with pytest.raises(Refused, match="array b is only in the state"):
            Arrays({"a": np.zeros(3)}).prepare(state)
        with pytest.raises(Refused, match="array c is only here"):
            Arrays({**mine, "c": np.zeros(1)}).prepare(state)
        with pytest.raises(Refused, match=r"array a is float32 \[3\] here but float64 \[3\]"):
            Arrays({**mine, "a": np.zeros(3, dtype=np.float32)}).prepare(state)


@pytest.mark.skipif("HPRESIL_LARGE_TESTS" not in os.environ, reason="HPRESIL_LARGE_TESTS=1: 9 GiB of memory")
def test_more_than_four_gib_in_one_array():
    size = (4 << 30) + 4096 + 3
    large = np.zeros(size, dtype=np.uint8)  # pages that are only read share one page of zeros
    large[-1], large[1 << 32] = 7, 5
    with Snapshots({"large": large}, threads=1) as snapshots:
        snapshots.begin(1)
        snapshots.wait()
        large[-1] = large[1 << 32] = 0
        snapshots.restore()
    assert (large[-1], large[1 << 32], large[0]) == (7, 5, 0)
    gc.collect()
