"""What must be equal on all workers about the tracked objects, as text in a fixed order.

Compared when a worker joins; the first differing entry is the reason for its refusal. Values that
change while training (learning rates) are left out: a spare has made a dry step when it is compared.
"""

from __future__ import annotations

import torch

from hpresil.snapshot.inventory import Inventory
from hpresil.snapshot.values import dtype_name


def facts(inventory: Inventory) -> dict[str, str]:
    """Return the facts about ``inventory``: parameters, buffers, optimizers, other objects."""
    found: dict[str, str] = {}
    for name, parameter in inventory.parameters:
        found[f"parameter {name}"] = _tensor(parameter) + ("" if parameter.requires_grad else ", frozen")
    for name, first in inventory.aliases.items():
        found[f"parameter {name}"] = f"tied to {first}"
    for name, buffer in inventory.buffers():
        found[f"buffer {name}"] = _tensor(buffer)
    for name, optimizer in inventory.optimizers.items():
        found[f"optimizer {name}"] = f"{_class(optimizer)}, {len(optimizer.param_groups)} groups"
        for key in sorted(optimizer.defaults, key=str):
            found[f"optimizer {name} default {key}"] = _value(optimizer.defaults[key])
        for index, names in enumerate(inventory.group_names(name)):
            for place, parameter_name in enumerate(names):
                found[f"optimizer {name} parameter {parameter_name}"] = f"group {index}, place {place}"
    for name, _, part in inventory.extra_state():
        found[f"extra state {name}"] = _class(part)
    for name, thing in inventory.others.items():
        found[f"object {name}"] = _class(thing)
    return found


def _class(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _tensor(tensor: torch.Tensor) -> str:
    shape = "x".join(map(str, tensor.shape)) or "scalar"
    strides = "" if tensor.is_contiguous() else f", strides {list(tensor.stride())}"
    return f"{dtype_name(tensor.dtype)} {shape} on {tensor.device.type}{strides}"


def _value(value: object) -> str:
    """Return a default as text; a schedule may change the contents of a tensor, but not its kind."""
    if isinstance(value, torch.Tensor):
        return f"tensor {_tensor(value)}"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(_value, value))})"
    return value.hex() if isinstance(value, float) else repr(value)
