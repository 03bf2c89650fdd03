"""Python values come back equal, of the same type, to the last bit."""

import math
import struct
from collections import Counter, OrderedDict, defaultdict

import msgspec
import numpy as np
import pytest
import torch

from hpresil.base.errors import ConfigError, DataError
from hpresil.snapshot.values import Code, TensorRef, decode, encode


def no_tensors(tensor, path):
    raise AssertionError(path)


def back(value):
    return decode(encode(value, "value", no_tensors), lambda ref: ref)


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 0, -1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, -(2**4000), 0.1, -0.0),
        *(math.inf, -math.inf, 5e-324, "", "é\0", "\ud800", b"", b"\xff", [], (), {}, set(), frozenset()),
        [1, [2.0, (3, [None])], {"a": {1: {(1, 2): "x"}}}],
        {1: "int", 1.5: "float", None: "none", (1, "a"): "tuple", b"b": "bytes", "\ud800": "text"},
        OrderedDict([("b", 1), ("a", 2)]),
        Counter({1: 2, 5: -1}),
        defaultdict(list, {"a": [1]}),
        {3, "a", (1, 2)},
        frozenset({1.5, b"x"}),
        complex(1, -0.0),
        torch.bfloat16,
        torch.device("cuda:3"),
        torch.Size([2, 3]),
    ],
    ids=lambda value: type(value).__name__,  # a set's text differs from process to process
)
def test_values_come_back_equal_and_of_the_same_type(value):
    found = back(value)
    assert found == value
    assert type(found) is type(value)
    if not isinstance(value, set | frozenset):  # their order depends on how they were filled
        assert repr(found) == repr(value)


@pytest.mark.parametrize(
    "bits", [0x7FF0000000000001, 0xFFF8000000000123, 0x8000000000000000, 0x0000000000000001]
)
def test_floats_keep_their_bits(bits):
    (value,) = struct.unpack("<d", struct.pack("<Q", bits))
    assert struct.pack("<d", back(value)) == struct.pack("<Q", bits)
    assert struct.pack("<d", back(complex(0, value)).imag) == struct.pack("<Q", bits)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array(3.5, dtype=np.float16),
        np.zeros((0, 4), bool),
        np.array(["é", "longer"]),
        np.array([b"x"]),
        np.array(["2020-01-01"], dtype="M8[s]"),
    ],
)
def test_arrays_keep_dtype_shape_order_and_bytes(array):
    found = back(array)
    assert (found.dtype.str, found.shape, found.flags.f_contiguous) == (
        array.dtype.str,
        array.shape,
        array.flags.f_contiguous,
    )
    assert found.tobytes() == array.tobytes()
    assert found.flags.writeable


@pytest.mark.parametrize(
    "scalar", [np.float32(0.1), np.int8(-3), np.bool_(True), np.datetime64("2020-01-01"), np.float64(2)]
)
def test_numpy_scalars_keep_their_type(scalar):
    assert back(scalar) == scalar
    assert type(back(scalar)) is type(scalar)


def test_dictionaries_keep_their_order_unless_the_canonical_form_is_asked_for():
    one, two = {"b": 1, "a": {3, 1, 2}}, {"a": {2, 1, 3}, "b": 1}
    assert list(back(one)) == ["b", "a"]
    assert encode(one, "v", no_tensors) != encode(two, "v", no_tensors)
    assert encode(one, "v", no_tensors, canonical=True) == encode(two, "v", no_tensors, canonical=True)
    ordered = OrderedDict(one), OrderedDict(two)
    assert encode(ordered[0], "v", no_tensors, canonical=True) != encode(
        ordered[1], "v", no_tensors, canonical=True
    )


def test_tensors_are_numbered_and_named_by_their_path():
    found = []

    def number(tensor, path):
        found.append((path, tensor))
        return len(found) - 1

    plain, parameter = torch.ones(2), torch.nn.Parameter(torch.ones(1))
    data = encode({"a": [plain, {"b": parameter}], 3: plain}, "thing", number)
    assert [path for path, _ in found] == ["thing.a[0]", "thing.a[1].b", "thing.3"]
    refs = decode(data, lambda ref: ref)
    assert refs["a"] == [TensorRef(0, False, False), {"b": TensorRef(1, True, True)}]


def test_what_contains_itself_is_refused():
    value = {}
    value["again"] = [value]
    with pytest.raises(ConfigError, match="or contains itself"):
        encode(value, "value", no_tensors)


@pytest.mark.parametrize(
    "array", [np.array([object()]), np.zeros(2, dtype=[("a", "i4")]), np.ma.masked_array([1], [True])]
)
def test_arrays_of_other_kinds_are_refused(array):
    with pytest.raises(ConfigError, match=r"^value\.x: "):
        encode({"x": array}, "value", no_tensors)


def test_a_default_dict_with_a_factory_of_its_own_is_refused():
    with pytest.raises(ConfigError, match="with a factory of its own"):
        encode(defaultdict(lambda: 1), "value", no_tensors)


def _ext(code, body):
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, msgspec.msgpack.encode(body)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        encode({"a": [1.5, (2,)]}, "value", no_tensors)[:-3],
        _ext(99, 1),
        _ext(int(Code.DICT), ["key without a value"]),
        _ext(int(Code.DTYPE), "save"),
        _ext(int(Code.NUMPY_ARRAY), ["O", [1], False, b"12345678"]),
        _ext(int(Code.NUMPY_ARRAY), ["<f8", [2], False, b"12345678"]),
        _ext(int(Code.DEFAULT_DICT), ["eval"]),
        _ext(int(Code.TENSOR), [1]),
        _ext(int(Code.SET), [[1]]),
    ],
    ids=repr,
)
def test_damaged_bytes_are_an_error_not_a_value(data):
    with pytest.raises(DataError):
        decode(data, lambda ref: ref)
