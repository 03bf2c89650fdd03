"""Refusals at track time: state that could not be restored bit for bit later is refused now.

Checked once, with names, because every one of these would otherwise surface as wrong bits or as an
error in the middle of a recovery.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from hpresil.base.errors import ConfigError
from hpresil.snapshot.inventory import Inventory

_SHARDED = (
    "its state has no full copy on this worker, so no peer could replace it; sharded state cannot be tracked"
)


def admit(inventory: Inventory) -> None:
    """Raise ConfigError if anything tracked cannot be captured and restored exactly."""
    for name, module in inventory.modules.items():
        for path, part in module.named_modules():
            if type(part).__name__ == "FullyShardedDataParallel":
                raise ConfigError(f"{name}{'.' if path else ''}{path} is wrapped in FSDP: {_SHARDED}")
    for name, parameter in inventory.parameters:
        check_tensor(parameter, f"parameter {name}")
        if parameter.is_complex():
            raise ConfigError(f"parameter {name} is complex; store it as two real parameters (view_as_real)")
    for name, buffer in inventory.buffers():
        check_tensor(buffer, f"buffer {name}")
    check_overlap(inventory)
    for name in inventory.optimizers:
        _check_optimizer(inventory, name)
    for name, thing in inventory.others.items():
        _check_scheduler(inventory, name, thing)


def check_tensor(tensor: torch.Tensor, what: str) -> None:
    """Raise ConfigError if ``tensor`` is of a kind whose bytes cannot be read and written in place."""
    if is_lazy(tensor):
        raise ConfigError(f"{what} is not initialised yet (a lazy module); run one forward before run.track")
    if type(tensor).__name__ == "DTensor":
        raise ConfigError(f"{what} is a DTensor: {_SHARDED}")
    if is_traceable_wrapper_subclass(tensor) or tensor.is_quantized:
        raise ConfigError(
            f"{what} is a {type(tensor).__name__} ({tensor.dtype}); only plain tensors can be tracked"
        )
    if tensor.is_meta:
        raise ConfigError(
            f"{what} is on the meta device; give it memory first: module.to_empty(device=…), then init"
        )
    if tensor.layout != torch.strided:
        raise ConfigError(f"{what} is sparse ({tensor.layout}); only dense tensors can be tracked")
    if tensor.is_inference():
        raise ConfigError(f"{what} was made under inference_mode; create it outside")
    if tensor.is_conj() or tensor.is_neg():
        raise ConfigError(f"{what} is a lazy conjugate or negative view; use resolve_conj()/resolve_neg()")


def _check_optimizer(inventory: Inventory, name: str) -> None:
    optimizer = inventory.optimizers[name]
    kind = type(optimizer)
    if kind.__name__ == "ZeroRedundancyOptimizer":
        raise ConfigError(f"{name} is a {kind.__name__}: {_SHARDED}")
    closure = inspect.signature(kind.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"{name} ({kind.__name__}) needs a closure: it would run the model in the part of a step that "
            "cannot be repeated; use an optimizer whose step() takes none"
        )
    if kind.state_dict is not Optimizer.state_dict:
        surplus = optimizer.state_dict().keys() - {"state", "param_groups"}
        if surplus:
            raise ConfigError(
                f"{name} ({kind.__name__}) keeps {sorted(map(str, surplus))} outside of state and "
                "param_groups; move it into the state of a parameter or the options of a group"
            )
    inventory.group_names(name)


def _check_scheduler(inventory: Inventory, name: str, thing: Any) -> None:
    if not isinstance(thing, LRScheduler):
        return
    driven = thing.optimizer
    if all(driven is not optimizer for optimizer in inventory.optimizers.values()):
        raise ConfigError(
            f"{name} sets the learning rate of an optimizer that is not tracked; track that one too"
        )


# --------------------------------------------------------------------------- shared memory


def check_overlap(inventory: Inventory) -> None:
    """Raise ConfigError if a parameter shares memory with another tracked tensor, or with itself."""
    parts: list[tuple[str, torch.Tensor, bool]] = []
    parts += [(f"parameter {n}", p, True) for n, p in inventory.parameters]
    parts += [(f"buffer {n}", b, False) for n, b in inventory.buffers()]
    for name, tensor, is_parameter in parts:
        if is_parameter and _repeats(tensor):
            raise ConfigError(f"{name} has elements that share memory (an expanded tensor); clone() it")
    for (name, one), (other, two) in _touching([part for part in parts if part[1].numel()]):
        if _share_elements(one, two):
            raise ConfigError(
                f"{name} and {other} share memory but are different tensors; tie parameters by assigning "
                "the same Parameter object, or clone() one of them"
            )


def _touching(parts: list[tuple[str, torch.Tensor, bool]]) -> Iterator[tuple[Any, Any]]:
    """Yield pairs whose ranges of memory overlap, at least one of them a parameter."""
    spans = sorted((part[1].data_ptr(), _end(part[1]), place) for place, part in enumerate(parts))
    active: list[tuple[int, int]] = []
    for start, end, place in spans:
        active = [(until, other) for until, other in active if until > start]
        for _, other in active:
            if parts[place][2] or parts[other][2]:
                yield parts[other][:2], parts[place][:2]
        active.append((end, place))


def _end(tensor: torch.Tensor) -> int:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr() + (last + 1) * tensor.element_size()


def _repeats(tensor: torch.Tensor) -> bool:
    """Whether two elements of ``tensor`` lie at the same place (found by sorting the dimensions)."""
    reach = 1
    for stride, size in sorted(
        (st, sz) for st, sz in zip(tensor.stride(), tensor.shape, strict=True) if sz > 1
    ):
        if stride < reach:
            return True
        reach += stride * (size - 1)
    return False


def _share_elements(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Whether two tensors with overlapping ranges have a byte in common."""
    base = min(one.data_ptr(), two.data_ptr())
    taken = torch.zeros(max(_end(one), _end(two)) - base, dtype=torch.bool)
    _bytes_in(taken, one, base).fill_(True)
    return bool(_bytes_in(taken, two, base).any())


def _bytes_in(taken: torch.Tensor, tensor: torch.Tensor, base: int) -> torch.Tensor:
    size = tensor.element_size()
    shape = (*tensor.shape, size)
    strides = (*(stride * size for stride in tensor.stride()), 1)
    return taken.as_strided(shape, strides, tensor.data_ptr() - base)
