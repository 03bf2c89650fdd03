"""From a `State` back into live objects, bit for bit.

Bytes go into the tensors that exist, by name, so that pointers, strides and whoever holds these
tensors (captured graphs, flat buffers, other modules) stay valid. ``Optimizer.load_state_dict`` is
never used: it casts fp32 moments of bf16 parameters to bf16. Optimizer state that is missing here is
created as it is there; what is surplus here is removed.

Everything that can be refused is refused before the first byte is written. Copying may be done by
section, parameters first; nothing but tensors changes until `Restoration.finish`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn

from hpresil.base.errors import HpresilError, Refused
from hpresil.snapshot.inventory import Inventory
from hpresil.snapshot.memory import is_plain
from hpresil.snapshot.preface import SECTIONS
from hpresil.snapshot.state import Entry, State, raw
from hpresil.snapshot.values import TensorRef, decode


class Restoration:
    """One restore in progress: where each tensor goes, then the python values.

    Raises:
        Refused: The state does not fit the tracked objects; the message names the first difference.
            Nothing was changed.
    """

    def __init__(self, inventory: Inventory, state: State) -> None:
        self.state = state
        self._inventory = inventory
        self._root = state.structure()
        self._targets: dict[int, torch.Tensor] = {}
        self._bound: set[int] = set()
        self._bind_fixed("parameters", list(inventory.parameters))
        self._bind_fixed("buffers", inventory.buffers())
        self._compare_objects()
        for name in inventory.optimizers:
            self._bind_optimizer(name)
        self._create_missing()

    def targets(self, section: str) -> list[tuple[int, torch.Tensor]]:
        """Return (index into ``state.tensors``, tensor to fill) for one of `SECTIONS`."""
        return [
            (i, self._targets[i]) for i, entry in enumerate(self.state.tensors) if entry.section == section
        ]

    def count_change(self) -> None:
        """Raise the version counter of every tensor that will be filled. Before a copy: a counter that rises
        while a slot is computed would be taken for a change by the script."""
        filled = [target for target in self._targets.values() if not target.is_inference()]
        torch.autograd.graph.increment_version(filled)

    def may_finish_first(self) -> bool:
        """Whether `finish` may run before the last section, the state of optimizers, is copied.

        It may if that section is only what optimizers keep for each parameter, in plain host memory: nobody
        needs it before the optimizer runs.
        """
        early = [self._root["objects"], self._root["extra"]]
        for optimizer in self._root["optimizers"].values():
            early += [optimizer["groups"], optimizer["loose"]]
        last = {index for index, _ in self.targets(SECTIONS[-1])}
        return all(is_plain(self._targets[i]) for i in last) and not any(
            ref.place in last for part in early for ref in _refs(part)
        )

    def copy(self, section: str) -> None:
        """Copy the tensors of one section out of ``state``."""
        for index, target in self.targets(section):
            copy_bits(target, self.state.tensors[index].tensor)

    def finish(self) -> None:
        """Set all python values; call it once, after all sections were copied (see `may_finish_first`).

        Raises:
            Refused: An object's load_state_dict or set_extra_state failed; the worker's state is
                then worth nothing.
        """
        root = decode(self.state.values, self._tensor)
        for name, path, part in self._inventory.extra_state():
            _load(f"{name}.{path}", part.set_extra_state, root["extra"][name][path])
        for name, thing in self._inventory.others.items():
            _load(name, thing.load_state_dict, root["objects"][name]["state"])
        for name in self._inventory.optimizers:
            self._finish_optimizer(name, root["optimizers"][name])

    # ------------------------------------------------------------------- comparing and binding

    def _bind_fixed(self, section: str, local: list[tuple[str, Any]]) -> None:
        there = {entry.name: i for i, entry in enumerate(self.state.tensors) if entry.section == section}
        kind = section.removesuffix("s")
        for name, tensor in local:
            if name not in there:
                raise Refused(f"{kind} {name} exists here but not in the state to restore; {_SAME}")
            index = there.pop(name)
            here, entry = Entry(name, section, tensor), self.state.tensors[index]
            if here.describe() != entry.describe():
                raise Refused(
                    f"{kind} {name} is {here.describe()} here but {entry.describe()} in the state; {_SAME}"
                )
            self._targets[index] = tensor
        for name in there:
            raise Refused(f"{kind} {name} exists in the state to restore but not here; {_SAME}")

    def _compare_objects(self) -> None:
        here = self._inventory
        _same("tracked optimizers", sorted(here.optimizers), sorted(self._root["optimizers"]))
        _same("tracked objects", sorted(here.others), sorted(self._root["objects"]))
        _same("tracked modules", sorted(here.modules), sorted(self._root["extra"]))
        extra = {f"{name}.{path}" for name, path, _ in here.extra_state()}
        there = {f"{name}.{path}" for name, parts in self._root["extra"].items() for path in parts}
        _same("modules with extra state", sorted(extra), sorted(there))
        for name, thing in here.others.items():
            _same(f"class of {name}", type(thing).__qualname__, self._root["objects"][name]["class"])
        for name, optimizer in here.optimizers.items():
            there_ = self._root["optimizers"][name]
            _same(f"class of {name}", type(optimizer).__qualname__, there_["class"])
            names = here.group_names(name)
            _same(f"number of groups of {name}", len(names), len(there_["names"]))
            for index, (one, two) in enumerate(zip(names, there_["names"], strict=True)):
                _same(f"parameters of group {index} of {name}", one, two)
            known = {parameter for group in names for parameter in group}
            _same(f"parameters with state in {name}", [], sorted(there_["state"].keys() - known))

    def _bind_optimizer(self, name: str) -> None:
        there, optimizer = self._root["optimizers"][name], self._inventory.optimizers[name]
        for parameter, state in self._inventory.state_of(name):
            self._bind(there["state"].get(parameter), state)
        self._bind(there["loose"], optimizer.state)
        for here, group in zip(optimizer.param_groups, there["groups"], strict=True):
            self._bind(group, here)

    def _bind(self, there: Any, here: Any) -> None:
        """Bind the tensors of a stored value to those in the same places of a live one."""
        if type(there) is TensorRef:
            if there.place not in self._targets and self._fits(there.place, here):
                self._targets[there.place] = here
                self._bound.add(id(here))
        elif isinstance(there, dict) and isinstance(here, dict):
            for key, value in there.items():
                if key in here:
                    self._bind(value, here[key])
        elif isinstance(there, list | tuple) and isinstance(here, list | tuple):
            for one, two in zip(there, here, strict=False):
                self._bind(one, two)

    def _fits(self, index: int, here: Any) -> bool:
        if not isinstance(here, torch.Tensor) or id(here) in self._bound:
            return False
        entry = self.state.tensors[index]
        alike = here.dtype == entry.dtype and tuple(here.shape) == entry.shape
        return alike and here.device.type == self._device(entry) and 0 not in here.stride()

    def _device(self, entry: Entry) -> str:
        return str(self._root["layout"]["devices"].get(entry.name, "cpu"))

    def _create_missing(self) -> None:
        owners = dict(self._owners())
        for index, entry in enumerate(self.state.tensors):
            if index in self._targets:
                continue
            device_type, strides = self._device(entry), self._root["layout"]["strides"].get(entry.name)
            near = owners.get(index)
            if near is None or near.device.type != device_type:
                near = next((p for _, p in self._inventory.parameters if p.device.type == device_type), None)
            device = torch.device(device_type) if near is None else near.device
            self._targets[index] = _empty(entry, strides, device)

    def _owners(self) -> Iterator[tuple[int, nn.Parameter]]:
        """Yield (index of optimizer state, the parameter it belongs to)."""
        by_name = dict(self._inventory.parameters)
        for optimizer in self._root["optimizers"].values():
            for name, value in optimizer["state"].items():
                for ref in _refs(value):
                    yield ref.place, by_name[name]

    # ------------------------------------------------------------------- python values

    def _tensor(self, ref: TensorRef) -> torch.Tensor:
        target = self._targets[ref.place]
        if ref.parameter and not isinstance(target, nn.Parameter):
            target = self._targets[ref.place] = nn.Parameter(target, requires_grad=ref.requires_grad)
        elif ref.requires_grad != target.requires_grad:
            target.requires_grad_(ref.requires_grad)
        return target

    def _finish_optimizer(self, name: str, there: dict[str, Any]) -> None:
        optimizer = self._inventory.optimizers[name]
        by_name = dict(self._inventory.parameters)
        state = cast(dict[Any, Any], optimizer.state)
        for key in [key for key in state if not isinstance(key, torch.Tensor)]:
            del state[key]
        state.update(there["loose"])
        for parameter in [by_name[n] for names in there["names"] for n in names]:
            value = there["state"].get(self._inventory.name_of[id(parameter)], _NOTHING)
            if value is _NOTHING:
                state.pop(parameter, None)
            elif type(value) is dict and type(state.get(parameter)) is dict:
                state[parameter].clear()  # others may hold this very dict
                state[parameter].update(value)
            else:
                state[parameter] = value
        for group, options in zip(optimizer.param_groups, there["groups"], strict=True):
            parameters = group["params"]
            group.clear()
            group.update({"params": parameters, **options})


_SAME = "all workers must build the same model from the same script and settings"
_NOTHING = object()


def _empty(entry: Entry, strides: list[int] | None, device: torch.device) -> torch.Tensor:
    if strides is None:
        return torch.empty(entry.shape, dtype=entry.dtype, device=device)
    return torch.empty_strided(entry.shape, strides, dtype=entry.dtype, device=device)


def copy_bits(target: torch.Tensor, source: torch.Tensor) -> None:
    """Copy the values of ``source`` into the memory of ``target``, every bit, whatever the strides.

    ``target`` may have expanded dimensions: these are written once.
    """
    into, values = raw(target), raw(source)
    for dim, (size, stride) in enumerate(zip(into.shape, into.stride(), strict=True)):
        if stride == 0 and size > 1:
            into, values = into.narrow(dim, 0, 1), values.narrow(dim, 0, 1)
    into.copy_(values)


def restore(inventory: Inventory, state: State) -> None:
    """Set everything in ``inventory`` to ``state``; see `Restoration`."""
    restoration = Restoration(inventory, state)
    for section in SECTIONS:
        restoration.copy(section)
    restoration.finish()


def _same(what: str, here: object, there: object) -> None:
    if here == there:
        return
    if isinstance(here, list) and isinstance(there, list):
        place = next(
            (i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b),
            min(len(here), len(there)),
        )
        here, there = ([*values[place : place + 1], None][0] for values in (here, there))
        what = f"{what}, place {place}"
    raise Refused(f"{what}: {here} here but {there} in the state to restore; {_SAME}")


def _refs(value: Any) -> Iterator[TensorRef]:
    if type(value) is TensorRef:
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _refs(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _refs(item)


def _load(name: str, load: Any, value: object) -> None:
    try:
        load(value)
    except HpresilError:
        raise
    except Exception as error:
        raise Refused(
            f"{name} did not accept its own stored state ({type(error).__name__}: {error}); the state of "
            "this worker is now partly replaced and must be restored again or discarded"
        ) from error
