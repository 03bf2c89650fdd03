"""From live objects to a `State`: references, names and python values, no copies of tensors."""

from __future__ import annotations

import torch

from hpresil.base.errors import ConfigError
from hpresil.snapshot.admission import check_tensor
from hpresil.snapshot.inventory import Inventory
from hpresil.snapshot.state import Entry, State
from hpresil.snapshot.values import Writer


def capture(inventory: Inventory) -> State:
    """Return the state of everything in ``inventory`` as it is now, referring to live tensors.

    Thread rule: may run in any thread as long as no tracked state changes meanwhile.

    Raises:
        ConfigError: A value has a type that cannot be stored, or optimizer state is not separate
            from the parameters; the message names its path.
        UsageError: A parameter was replaced after it was tracked.
    """
    return _Capture(inventory).run()


class _Capture:
    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._entries: list[Entry] = []
        self._places: dict[int, int] = {}
        self._names: set[str] = set()
        self._section = "parameters"
        self._keep: list[torch.Tensor] = []  # what state_dict() made must outlive its id
        self._storages: set[int] = set()
        self._writer = Writer(self._number)

    def run(self) -> State:
        inventory = self._inventory
        inventory.check_parameters()
        for name, parameter in inventory.parameters:
            self._add(parameter, name)
        self._storages = {p.untyped_storage().data_ptr() for _, p in inventory.parameters if p.numel()}
        self._section = "buffers"
        for name, buffer in inventory.buffers():
            check_tensor(buffer, f"buffer {name}")
            self._add(buffer, name)
        fixed = len(self._entries)
        # In the order of SECTIONS, because a tensor's place in the values is its place in the list.
        pieces = {"extra": self._extra(), "objects": self._objects(), "optimizers": self._optimizers()}
        pieces["layout"] = self._writer.piece(_layouts(self._entries[fixed:]), "layout")
        return State(self._entries, self._writer.packed(self._writer.mapping(pieces)))

    def _optimizers(self) -> object:
        self._section = "optimizer"
        return self._writer.mapping({name: self._optimizer(name) for name in self._inventory.optimizers})

    def _optimizer(self, name: str) -> object:
        writer, optimizer = self._writer, self._inventory.optimizers[name]
        state = {
            parameter: writer.piece(value, f"{name}.state.{parameter}")
            for parameter, value in self._inventory.state_of(name)
        }
        loose = {key: value for key, value in optimizer.state.items() if not isinstance(key, torch.Tensor)}
        options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
        return writer.mapping(
            {
                "state": writer.mapping(state),
                "loose": writer.piece(loose, f"{name}.state"),
                "groups": writer.piece(options, f"{name}.groups"),
                "names": writer.piece(self._inventory.group_names(name), f"{name}.names"),
                "class": writer.piece(type(optimizer).__qualname__, name),
            }
        )

    def _extra(self) -> object:
        self._section = "rest"
        found: dict[str, dict[str, object]] = {name: {} for name in self._inventory.modules}
        for name, path, part in self._inventory.extra_state():
            found[name][path] = self._writer.piece(part.get_extra_state(), f"{name}.{path}._extra_state")
        return self._writer.mapping({name: self._writer.mapping(parts) for name, parts in found.items()})

    def _objects(self) -> object:
        self._section = "rest"
        return self._writer.mapping(
            {
                name: self._writer.mapping(
                    {
                        "class": self._writer.piece(type(thing).__qualname__, name),
                        "state": self._writer.piece(thing.state_dict(), name),
                    }
                )
                for name, thing in self._inventory.others.items()
            }
        )

    def _number(self, tensor: torch.Tensor, path: str) -> int:
        if id(tensor) in self._places:
            return self._places[id(tensor)]
        check_tensor(tensor, path)
        if (
            self._section == "optimizer"
            and tensor.numel()
            and tensor.untyped_storage().data_ptr() in self._storages
        ):
            raise ConfigError(
                f"{path} shares memory with a parameter; optimizer state must be separate (clone() it)"
            )
        return self._add(tensor, path)

    def _add(self, tensor: torch.Tensor, name: str) -> int:
        name = name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()
        unique, turn = name, 1
        while unique in self._names:
            turn += 1
            unique = f"{name}#{turn}"
        self._names.add(unique)
        self._keep.append(tensor)
        self._places[id(tensor)] = len(self._entries)
        self._entries.append(Entry(unique, self._section, tensor.detach()))
        return len(self._entries) - 1


def _layouts(entries: list[Entry]) -> dict[str, dict[str, object]]:
    """Return device types and strides by name, so that a missing tensor can be created alike.

    What is not mentioned is on the CPU, and contiguous.
    """
    devices: dict[str, object] = {}
    strides: dict[str, object] = {}
    for entry in entries:
        tensor = entry.tensor
        if not tensor.is_cpu:
            devices[entry.name] = tensor.device.type
        if not tensor.is_contiguous() and _is_permuted(tensor):
            strides[entry.name] = list(tensor.stride())
    return {"devices": devices, "strides": strides}


def _is_permuted(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` is dense: its elements fill one block of memory in some order."""
    reach = 1
    for stride, size in sorted(
        (st, sz) for st, sz in zip(tensor.stride(), tensor.shape, strict=True) if sz > 1
    ):
        if stride != reach:
            return False
        reach *= size
    return True
