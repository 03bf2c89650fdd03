"""Python values ↔ bytes, exactly, and without pickle.

Next to tensors, training state holds python values: step counters, learning rates, the dictionaries
of schedulers and scalers. They must come back *equal and of the same type*: a float to the last bit
(NaN payloads, infinities and -0.0 included), an int of any size, a dict in its order with keys of any
of the types below. And reading them must not be able to run code.

MessagePack carries None, bool, 64-bit int, float, str, bytes and list as they are. Everything else is
a MessagePack extension: its code is an entry of `Code` and its body is again MessagePack. A tensor is
replaced by a reference to its place in a list of tensors which the caller keeps.

Not kept: that two places held the same object (a list referenced twice becomes two lists; tensors are
the exception, they are numbered by identity), and subclasses: whatever is not exactly one of the
known types is refused with the path at which it was found.
"""

from __future__ import annotations

import enum
import functools
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from msgspec.msgpack import Ext

from hpresil.base.errors import ConfigError, DataError

MAX_DEPTH = 64
Number = Callable[[torch.Tensor, str], int]


class Code(enum.IntEnum):
    """MessagePack extension codes; part of the format, never renumbered."""

    INT = 1
    TEXT = 2
    COMPLEX = 3
    TUPLE = 4
    DICT = 5
    ORDERED_DICT = 6
    COUNTER = 7
    DEFAULT_DICT = 8
    SET = 9
    FROZEN_SET = 10
    DTYPE = 11
    DEVICE = 12
    SIZE = 13
    NUMPY_SCALAR = 14
    NUMPY_ARRAY = 15
    TENSOR = 16


class TensorRef(NamedTuple):
    """Stands for a tensor: its place in the list, and whether it was a Parameter or required a gradient."""

    place: int
    parameter: bool
    requires_grad: bool


FACTORIES: dict[str, Any] = {
    "": None, "int": int, "float": float, "list": list, "dict": dict, "set": set, "str": str, "bool": bool,
}  # fmt: skip
_ADVICE = (
    "state is stored without pickle: let state_dict() return plain values (None, bool, int, float, complex, "
    "str, bytes, list, tuple, dict, set, numpy arrays, tensors), or leave it out and rebuild it in the script"
)
_DAMAGE = (
    msgspec.MsgspecError, ValueError, TypeError, LookupError, AttributeError, struct.error, RecursionError,
)  # fmt: skip
_pack = msgspec.msgpack.Encoder().encode


def _ext(code: Code, body: object) -> Ext:
    return Ext(int(code), _pack(body))


_NUMPY_KINDS = frozenset("biufcmMSUV")


def encode(value: object, path: str, number: Number, *, canonical: bool = False) -> bytes:
    """Return ``value`` as MessagePack.

    Args:
        value: What to store.
        path: What messages and tensor names call it, e.g. ``scheduler``.
        number: Called with each tensor found and its path; returns its place in the list of tensors.
        canonical: Sort plain dictionaries, so that equal values have equal bytes.

    Raises:
        ConfigError: Some value has a type that cannot be stored; the message names its path.
    """
    return _pack(Writer(number, canonical=canonical).piece(value, path))


def decode(data: bytes | memoryview, tensor: Callable[[TensorRef], object]) -> Any:
    """Return the value stored in ``data``; ``tensor`` supplies what stands for a tensor.

    Raises:
        DataError: ``data`` is not what `encode` writes.
    """
    decoder: msgspec.msgpack.Decoder[Any]

    def hook(code: int, body: memoryview) -> object:
        return _READERS[Code(code)](decoder.decode(body), tensor)

    decoder = msgspec.msgpack.Decoder(ext_hook=hook)
    try:
        return decoder.decode(data)
    except _DAMAGE as error:
        raise DataError(f"stored python values are damaged or of another format: {error}") from error


class Writer:
    """Turns values into what MessagePack knows, piece by piece, each under a path of its own."""

    def __init__(self, number: Number, *, canonical: bool = False) -> None:
        self._number = number
        self._canonical = canonical

    def piece(self, value: object, path: str) -> object:
        """Return ``value`` ready to be packed; tensors in it are numbered. See `encode`."""
        return self.plain(value, path, 0)

    @staticmethod
    def mapping(pieces: dict[str, object]) -> object:
        """Return the piece of a dictionary with these pieces as its values."""
        return _ext(Code.DICT, [part for key, piece in pieces.items() for part in (_text(key), piece)])

    @staticmethod
    def packed(piece: object) -> bytes:
        """Return the bytes of a finished piece."""
        return _pack(piece)

    def plain(self, value: Any, path: str, depth: int) -> object:
        """Return ``value`` at nesting ``depth`` ready to be packed."""
        kind = type(value)
        if value is None or kind is bool or kind is float or kind is bytes:
            return value
        if kind is int:
            return value if -(1 << 63) <= value < 1 << 63 else _ext(Code.INT, _int_bytes(value))
        if kind is str:
            return value if value.isascii() else _text(value)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{path}: nested more than {MAX_DEPTH} deep, or contains itself; {_ADVICE}")
        if isinstance(value, torch.Tensor):
            ref = TensorRef(
                self._number(value, path), isinstance(value, torch.nn.Parameter), value.requires_grad
            )
            return _ext(Code.TENSOR, ref)
        writer = _WRITERS.get(kind)
        if writer is not None:
            return writer(self, value, path, depth)
        if isinstance(value, np.generic):
            return _numpy(Code.NUMPY_SCALAR, np.asarray(value), path)
        raise ConfigError(f"{path}: {_describe(value)} cannot be stored; {_ADVICE}")

    def items(self, values: Iterable[Any], path: str, depth: int) -> list[object]:
        """Return the elements of a list or tuple."""
        return [self.plain(value, f"{path}[{i}]", depth + 1) for i, value in enumerate(values)]

    def pairs(self, value: dict[Any, Any], path: str, depth: int, *, ordered: bool = False) -> list[object]:
        """Return keys and values of a dictionary, alternating."""
        pairs = []
        for key, item in value.items():
            name = key if type(key) is str else repr(key)
            written = self.plain(key, f"{path} key {name}", depth + 1)
            pairs.append((written, self.plain(item, f"{path}.{name}", depth + 1)))
        if self._canonical and not ordered:
            pairs.sort(key=lambda pair: _pack(pair[0]))
        return [part for pair in pairs for part in pair]

    def members(self, value: Iterable[Any], path: str, depth: int) -> list[object]:
        """Return the elements of a set, in an order that depends on the elements alone."""
        return sorted((self.plain(item, f"{path} element {item!r}", depth + 1) for item in value), key=_pack)


def _describe(value: object) -> str:
    kind = type(value)
    if isinstance(value, enum.Enum):
        return f"{value} (an enum)"
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return f"a {kind.__name__} (a NamedTuple)"
    if callable(value) and hasattr(value, "__qualname__"):
        return (
            f"function {value.__qualname__}" if not isinstance(value, type) else f"class {value.__qualname__}"
        )
    return f"a value of type {kind.__module__}.{kind.__qualname__}"


def _int_bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _text(value: str) -> object:
    try:
        value.encode()
    except UnicodeEncodeError:  # lone surrogates, as in undecodable file names
        return _ext(Code.TEXT, value.encode("utf-8", "surrogatepass"))
    return value


def _numpy(code: Code, array: np.ndarray[Any, Any], path: str) -> Ext:
    kind = array.dtype
    if kind.kind not in _NUMPY_KINDS or kind.hasobject or kind.names is not None or kind.subdtype is not None:
        raise ConfigError(f"{path}: numpy dtype {kind} cannot be stored; {_ADVICE}")
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    body = [kind.str, list(array.shape), fortran, array.tobytes("F" if fortran else "C")]
    return _ext(code, body)


def _default_dict(plain: Writer, value: defaultdict[Any, Any], path: str, depth: int) -> Ext:
    for name, factory in FACTORIES.items():
        if value.default_factory is factory:
            return _ext(Code.DEFAULT_DICT, [name, *plain.pairs(value, path, depth)])
    raise ConfigError(f"{path}: a defaultdict with a factory of its own cannot be stored; {_ADVICE}")


def _write_array(_: Writer, value: np.ndarray[Any, Any], path: str, __: int) -> Ext:
    return _numpy(Code.NUMPY_ARRAY, value, path)


@functools.cache
def dtype_name(dtype: torch.dtype) -> str:
    """Return the name of ``dtype`` without the module, e.g. ``bfloat16``."""
    return str(dtype).removeprefix("torch.")


_WRITERS: dict[type, Callable[[Writer, Any, str, int], object]] = {
    list: lambda p, v, path, d: p.items(v, path, d),
    tuple: lambda p, v, path, d: _ext(Code.TUPLE, p.items(v, path, d)),
    dict: lambda p, v, path, d: _ext(Code.DICT, p.pairs(v, path, d)),
    OrderedDict: lambda p, v, path, d: _ext(Code.ORDERED_DICT, p.pairs(v, path, d, ordered=True)),
    Counter: lambda p, v, path, d: _ext(Code.COUNTER, p.pairs(v, path, d)),
    defaultdict: _default_dict,
    set: lambda p, v, path, d: _ext(Code.SET, p.members(v, path, d)),
    frozenset: lambda p, v, path, d: _ext(Code.FROZEN_SET, p.members(v, path, d)),
    complex: lambda p, v, path, d: _ext(Code.COMPLEX, struct.pack("<dd", v.real, v.imag)),
    torch.dtype: lambda p, v, path, d: _ext(Code.DTYPE, dtype_name(v)),
    torch.device: lambda p, v, path, d: _ext(Code.DEVICE, str(v)),
    torch.Size: lambda p, v, path, d: _ext(Code.SIZE, list(v)),
    np.ndarray: _write_array,
}


def dtype_named(name: str) -> torch.dtype:
    """Return the torch dtype called ``name``; DataError if this torch has none."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise DataError(f"this torch ({torch.__version__}) has no dtype {name!r}; use the one that wrote it")
    return dtype


def _read_dict(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _read_array(body: list[Any]) -> np.ndarray[Any, Any]:
    kind, shape, fortran, data = body
    return np.frombuffer(data, np.dtype(kind)).reshape(shape, order="F" if fortran else "C").copy(order="K")


def _read_counter(flat: list[Any]) -> Counter[Any]:
    counter: Counter[Any] = Counter()
    dict.update(counter, _read_dict(flat))  # Counter.update would add
    return counter


_READERS: dict[Code, Callable[[Any, Callable[[TensorRef], object]], object]] = {
    Code.INT: lambda body, _: int.from_bytes(body, "little", signed=True),
    Code.TEXT: lambda body, _: body.decode("utf-8", "surrogatepass"),
    Code.COMPLEX: lambda body, _: complex(*struct.unpack("<dd", body)),
    Code.TUPLE: lambda body, _: tuple(body),
    Code.DICT: lambda body, _: _read_dict(body),
    Code.ORDERED_DICT: lambda body, _: OrderedDict(_read_dict(body)),
    Code.COUNTER: lambda body, _: _read_counter(body),
    Code.DEFAULT_DICT: lambda body, _: defaultdict(FACTORIES[body[0]], _read_dict(body[1:])),
    Code.SET: lambda body, _: set(body),
    Code.FROZEN_SET: lambda body, _: frozenset(body),
    Code.DTYPE: lambda body, _: dtype_named(body),
    Code.DEVICE: lambda body, _: torch.device(body),
    Code.SIZE: lambda body, _: torch.Size(body),
    Code.NUMPY_SCALAR: lambda body, _: _read_array(body)[()],
    Code.NUMPY_ARRAY: lambda body, _: _read_array(body),
    Code.TENSOR: lambda body, tensor: tensor(TensorRef(*body)),
}
