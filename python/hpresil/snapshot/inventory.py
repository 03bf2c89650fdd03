"""What the tracked objects are made of, looked up afresh whenever it may have changed.

Parameters are fixed when they are tracked: the optimizer and the gradient buffers hold on to these
very objects. Buffers are looked up on each use, because a module may replace a buffer in forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from hpresil.base.errors import ConfigError, UsageError


class Inventory:
    """The tracked objects by kind, and names for all their parameters.

    A parameter has one name, the first under which it is found; ``aliases`` maps its other names to it.

    Raises:
        ConfigError: An object is none of module, optimizer, or something with state_dict and
            load_state_dict; or one object has two names.
    """

    def __init__(self, objects: dict[str, object]) -> None:
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: dict[str, Optimizer] = {}
        self.others: dict[str, Any] = {}
        seen: dict[int, str] = {}
        for name, thing in objects.items():
            if not name.isidentifier():
                raise ConfigError(f"track({name!r}=…): the name must be a python identifier")
            if id(thing) in seen:
                raise ConfigError(
                    f"{seen[id(thing)]} and {name} are the same object; track it under one name"
                )
            seen[id(thing)] = name
            self._sort_in(name, thing)
        self.parameters: list[tuple[str, nn.Parameter]] = []
        self.aliases: dict[str, str] = {}
        self._name_parameters()
        self.name_of = {id(parameter): name for name, parameter in self.parameters}

    def _sort_in(self, name: str, thing: object) -> None:
        if isinstance(thing, nn.Module):
            self.modules[name] = thing
        elif isinstance(thing, Optimizer):
            self.optimizers[name] = thing
        elif callable(getattr(thing, "state_dict", None)) and callable(
            getattr(thing, "load_state_dict", None)
        ):
            self.others[name] = thing
        else:
            raise ConfigError(
                f"{name} ({type(thing).__qualname__}) cannot be tracked: it is no module, no optimizer, "
                "and has no state_dict/load_state_dict; give it these two methods, or leave it out if it "
                "never changes"
            )

    def _name_parameters(self) -> None:
        first: dict[int, str] = {}
        for path, parameter in self._all_parameters():
            if id(parameter) in first:
                self.aliases[path] = first[id(parameter)]
            else:
                first[id(parameter)] = path
                self.parameters.append((path, parameter))

    def _all_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, module in self.modules.items():
            for path, parameter in module.named_parameters(remove_duplicate=False):
                yield f"{name}.{path}", parameter

    def check_parameters(self) -> None:
        """Raise UsageError if a module's parameter was replaced, added or removed since tracking."""
        names = {name for name, _ in self.parameters} | self.aliases.keys()
        for path, parameter in self._all_parameters():
            expected = self.aliases.get(path, path)
            if self.name_of.get(id(parameter)) != expected:
                raise UsageError(
                    f"parameter {path} is not the object that was tracked; change parameters in place, "
                    "or change the model before run.track"
                )
            names.discard(path)
        if names:
            raise UsageError(
                f"parameter {min(names)} is gone since run.track; change the model before run.track"
            )

    def buffers(self) -> list[tuple[str, torch.Tensor]]:
        """Return the buffers of all tracked modules by name, persistent or not, each once."""
        found: dict[int, tuple[str, torch.Tensor]] = {}
        for name, module in self.modules.items():
            for path, buffer in module.named_buffers():
                found.setdefault(id(buffer), (f"{name}.{path}", buffer))
        return list(found.values())

    def extra_state(self) -> Iterator[tuple[str, str, nn.Module]]:
        """Yield (tracked name, path, submodule) of the submodules that define get_extra_state."""
        for name, module in self.modules.items():
            for path, part in module.named_modules():
                if type(part).get_extra_state is not nn.Module.get_extra_state:
                    yield name, path, part

    def group_names(self, optimizer: str) -> list[list[str]]:
        """Return the parameter names of each group of an optimizer.

        Raises:
            ConfigError: A parameter does not belong to a tracked module.
        """
        groups = []
        for index, group in enumerate(self.optimizers[optimizer].param_groups):
            names = []
            for place, parameter in enumerate(group["params"]):
                name = self.name_of.get(id(parameter))
                if name is None:
                    raise ConfigError(
                        f"{optimizer}: parameter {place} of group {index} (shape {list(parameter.shape)}) "
                        "belongs to no tracked module, so its state would have no name; track the module "
                        "it is part of"
                    )
                names.append(name)
            groups.append(names)
        return groups

    def state_of(self, optimizer: str) -> Iterator[tuple[str, Any]]:
        """Yield (parameter name, state) in the order of the groups, for parameters that have state."""
        state = cast(dict[Any, Any], self.optimizers[optimizer].state)
        for group, names in zip(
            self.optimizers[optimizer].param_groups, self.group_names(optimizer), strict=True
        ):
            for parameter, name in zip(group["params"], names, strict=True):
                if parameter in state:
                    yield name, state[parameter]
