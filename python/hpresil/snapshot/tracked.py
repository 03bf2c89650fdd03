"""Everything that must survive, as one object: capture it, restore it, compare it.

The problem: a newcomer must continue *bit for bit* where a peer is. ``state_dict`` and
``load_state_dict`` do not do that: they cast moments, key optimizer state by position, drop
non-persistent buffers and break ties. So modules and optimizers are read and written directly, by
parameter name; only other objects (schedulers, scalers, anything with the two methods) go through them.

What is tracked: all parameters (frozen ones too, tied ones once) and buffers (non-persistent too) of
modules, extra state of submodules that define it, all state and options of optimizers, the
``state_dict()`` of everything else. What is not: attributes of modules that are neither, hooks,
gradients, the training flag, random generators.

Not guaranteed: that a load_state_dict written by somebody else restores what its state_dict returned.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from hpresil.snapshot import capture, facts, restore
from hpresil.snapshot.admission import admit
from hpresil.snapshot.inventory import Inventory
from hpresil.snapshot.state import State
from hpresil.snapshot.watch import Watch


class Tracked:
    """The objects whose state must survive, by name.

    Args:
        objects: Modules, optimizers, LR schedulers, GradScalers, averaged models, anything with
            ``state_dict`` and ``load_state_dict``.

    Raises:
        ConfigError: Something cannot be captured and restored exactly; the message names it.
    """

    def __init__(self, objects: dict[str, object]) -> None:
        self._inventory = Inventory(objects)
        admit(self._inventory)
        self._watch = Watch(self._inventory)
        self.capture()  # what cannot be stored is refused now, not at the first fault

    @property
    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """All parameters of the tracked modules, frozen ones included, each once."""
        return list(self._inventory.parameters)

    @property
    def buffers(self) -> list[tuple[str, torch.Tensor]]:
        """All buffers of the tracked modules as they are now, each once."""
        return self._inventory.buffers()

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The tracked modules by name."""
        return dict(self._inventory.modules)

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The tracked optimizers by name."""
        return dict(self._inventory.optimizers)

    @property
    def objects(self) -> dict[str, object]:
        """What is neither module nor optimizer, by name."""
        return dict(self._inventory.others)

    def facts(self) -> dict[str, str]:
        """Return what must be equal on all workers, in a fixed order."""
        return facts.facts(self._inventory)

    def capture(self) -> State:
        """Return the state as it is now, referring to live tensors: valid until they change."""
        return capture.capture(self._inventory)

    def prepare(self, state: State) -> restore.Restoration:
        """Compare ``state`` with what is here and return the restore, ready to run by section.

        Raises:
            Refused: It does not fit; nothing was changed.
        """
        return restore.Restoration(self._inventory, state)

    def restore(self, state: State) -> None:
        """Set everything tracked to ``state``, bit for bit, in place.

        Raises:
            Refused: It does not fit; the message names the first difference, nothing was changed.
        """
        restore.restore(self._inventory, state)

    def digest(self) -> str:
        """Return a hex digest of everything tracked; equal exactly if all bytes and values are."""
        return self.capture().digest()

    def mark(self) -> None:
        """Remember the version counters of parameters and optimizer state."""
        self._watch.mark()

    def changed_in_forward(self) -> list[str]:
        """Return the names of parameters and optimizer state changed since `mark`; buffers excluded."""
        return self._watch.changed()
