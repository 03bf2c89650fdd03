"""Gradients of slots: where backward writes, how slots fold, what the optimizer sees.

The problem: the sum over slots must have the same bits whichever rank carries which slot, gradients
of finished slots must survive a change of members, and user code must still find ``p.grad``.

The design: one flat buffer a tree node (and accumulation dtype: fp64 for fp64 parameters, else
fp32). A parameter's first gradient in a slot is copied into that slot's buffer as soon as backward has
made it; then ``p.grad`` is a view there in the parameter's own strides, to which later microbatches add. For
parameters of other dtypes each gradient is added. What lies between parameters stays zero. A finished slot
folds with its sibling as soon as both are there, in the canonical tree (`hpresil.elastic.slots`).
Behind the gradients every buffer has a region for module buffers that are averaged or summed.

Memory: for k slots on a rank up to 1 + ceil(log2 k) buffers, one for the reduced gradient, and what the
reduction receives; buffers go back to a pool that is never shrunk, because faulting in fresh
memory costs more than keeping it.

Thread rule: the training thread only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from hpresil.base.errors import ConfigError, UsageError
from hpresil.comm import segments
from hpresil.comm.arithmetic import BLOCK
from hpresil.elastic.slots import Node, children, cover, parent

ALIGN = 16  # elements; keeps every parameter on its own cache line


@dataclass(frozen=True)
class Place:
    """Where a parameter's gradient lies: which flat buffer, at which element."""

    name: str
    parameter: torch.nn.Parameter
    flat: int
    offset: int
    direct: bool  # autograd writes into the buffer itself


class Layout:
    """The flat buffers of one slot: ``dtypes[i]``, ``lengths[i]`` elements, gradients in the first
    ``norm_blocks[i]`` blocks, then ``tail`` elements (in buffer 0's dtype group for fp32, padded)."""

    def __init__(
        self,
        parameters: Iterable[tuple[str, torch.nn.Parameter]],
        tail: dict[torch.dtype, int],
        *,
        readable: bool = False,
    ) -> None:
        trained = [(name, p) for name, p in parameters if p.requires_grad]
        if not trained:
            raise ConfigError("none of the tracked parameters requires a gradient: there is nothing to train")
        self.device = trained[0][1].device
        self._readable = readable and self.device.type == "cpu"
        accumulators = {accumulator(p.dtype) for _, p in trained} | {d for d, n in tail.items() if n}
        self.dtypes = [d for d in (torch.float32, torch.float64) if d in accumulators]
        used = [0] * len(self.dtypes)
        self.places: list[Place] = []
        for name, p in trained:
            if p.device != self.device:
                raise ConfigError(f"parameter {name} is on {p.device}, others are on {self.device}")
            flat = self.dtypes.index(accumulator(p.dtype))
            direct = p.dtype == self.dtypes[flat]
            self.places.append(Place(name, p, flat, used[flat], direct))
            used[flat] += -(-p.numel() // ALIGN) * ALIGN
        self.norm_blocks = [-(-n // BLOCK) for n in used]
        self.tail_start = [blocks * BLOCK for blocks in self.norm_blocks]
        tails = [-(-tail.get(d, 0) // BLOCK) * BLOCK for d in self.dtypes]
        self.lengths = [start + n for start, n in zip(self.tail_start, tails, strict=True)]

    def empty(self) -> list[torch.Tensor]:
        """Return zeroed flat buffers; other workers of the node can read them if that was asked for."""
        if self._readable:
            return segments.allocate(self.dtypes, self.lengths)
        pairs = zip(self.dtypes, self.lengths, strict=True)
        return [torch.zeros(n, dtype=d, device=self.device) for d, n in pairs]

    def view(self, flats: list[torch.Tensor], place: Place) -> torch.Tensor:
        """Return the part of ``flats`` that is this parameter's, in its shape and strides."""
        p = place.parameter
        part = flats[place.flat][place.offset : place.offset + p.numel()]
        return (
            part.as_strided(p.shape, p.stride(), part.storage_offset()) if is_dense(p) else part.view(p.shape)
        )


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which gradients of ``dtype`` parameters are summed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def is_dense(t: torch.Tensor) -> bool:
    """Return whether ``t`` fills its memory without gaps or overlaps, in whatever order of axes."""
    expected = 1
    for stride, size in sorted((st, sz) for st, sz in zip(t.stride(), t.shape, strict=True) if sz > 1):
        if stride != expected:
            return False
        expected *= size
    return True


class Gradients:
    """The gradient buffers of one worker. ``nodes`` maps tree nodes to finished, folded sums."""

    def __init__(self, layout: Layout, slots: int) -> None:
        self.layout = layout
        self.slots = slots
        self.nodes: dict[Node, list[torch.Tensor]] = {}
        self.used = [False] * len(layout.places)
        self.reduced: list[torch.Tensor] | None = None
        self._pool: list[list[torch.Tensor]] = []
        self._open: tuple[int, list[torch.Tensor]] | None = None
        self._slot_used = list(self.used)
        self._views: list[torch.Tensor] = []
        self._shown: list[tuple[torch.Tensor | None, int]] = []
        self._inside = False
        for index, place in enumerate(layout.places):
            place.parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                self._on_gradient(index)
            )

    # ------------------------------------------------------------------ one slot

    def open_slot(self, slot: int) -> None:
        """Make a buffer the target of backward. What is in it counts for nothing."""
        flats = self._take()
        self._open = (slot, flats)
        self._slot_used = [False] * len(self.layout.places)
        self._views = [self.layout.view(flats, place) for place in self.layout.places]
        self.attach()

    def attach(self) -> None:
        """Make ``p.grad`` what backward is to add to, also where the user's `zero_grad` detached it.

        That is nothing before a parameter's first gradient: autograd then leaves its own tensor, which is
        copied instead of added to zeros.
        """
        for place, view, used in zip(self.layout.places, self._views, self._slot_used, strict=True):
            target = view if place.direct and used else None
            if place.parameter.grad is not target:
                place.parameter.grad = target

    def backward(self, loss: torch.Tensor) -> None:
        """Run backward; every gradient goes into the buffer."""
        self.attach()
        self._inside = True
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        finally:
            self._inside = False

    @torch.no_grad()
    def _take_over(self, index: int) -> None:
        """Backward left a gradient of its own: move it to where it belongs."""
        place, view = self.layout.places[index], self._views[index]
        grad = place.parameter.grad
        assert grad is not None
        if grad.is_sparse:
            raise UsageError(
                f"parameter {place.name} has a sparse gradient: build its embedding with sparse=False"
            )
        if self._slot_used[index]:
            view.add_(grad)
        else:
            view.copy_(grad)
        place.parameter.grad = view if place.direct else None

    @torch.no_grad()
    def fill_unused(self) -> None:
        """The last backward of the open slot is done: what it did not reach is zero."""
        for view, used in zip(self._views, self._slot_used, strict=True):
            if not used:
                view.zero_()

    def close_slot(self) -> int:
        """The slot's gradient is complete: fold it. Returns the slot."""
        assert self._open is not None
        slot, flats = self._open
        self.fill_unused()
        self._open = None
        self.used = [a or b for a, b in zip(self.used, self._slot_used, strict=True)]
        self.nodes[Node(0, slot)] = flats
        self._fold(Node(0, slot))
        return slot

    def drop_slot(self) -> None:
        """Forget the open slot: user code failed in it."""
        if self._open is not None:
            self._pool.append(self._open[1])
            self._open = None

    def open_flats(self) -> list[torch.Tensor]:
        """Return the buffers of the open slot."""
        assert self._open is not None
        return self._open[1]

    def _fold(self, node: Node) -> None:
        above = parent(node, self.slots)
        if above is None:
            return
        left, right = children(above, self.slots)
        if left not in self.nodes or right not in self.nodes:
            return
        into, other = self.nodes.pop(left), self.nodes.pop(right)
        for a, b in zip(into, other, strict=True):
            a.add_(b)
        self._pool.append(other)
        self.nodes[above] = into
        self._fold(above)

    # ------------------------------------------------------------------ the whole step

    def contribution(self, carried: Iterable[int]) -> dict[Node, list[torch.Tensor]]:
        """Return the tree nodes this rank brings to the reduction."""
        return {node: self.nodes[node] for node in cover(self.slots, carried)}

    def target(self) -> list[torch.Tensor]:
        """Return the buffers for the reduced gradient, kept over steps."""
        if self.reduced is None:
            self.reduced = self.layout.empty()
        return self.reduced

    def retire_target(self) -> None:
        """Something may still write to the buffers of the reduced gradient: use others from now on."""
        self.reduced = None

    def show_reduced(self, used: list[bool]) -> None:
        """Let ``p.grad`` be the canonical gradient; None for parameters that no slot used."""
        flats = self.target()
        self._shown = []
        for place, is_used in zip(self.layout.places, used, strict=True):
            grad = self.layout.view(flats, place) if is_used else None
            if grad is not None and not place.direct:
                grad = grad.to(place.parameter.dtype)
            place.parameter.grad = grad
            self._shown.append((grad, 0 if grad is None else grad._version))

    def changed_by_user(self) -> bool:
        """Whether user code changed or replaced a gradient since `show_reduced`."""
        return any(
            place.parameter.grad is not grad or (grad is not None and grad._version != version)
            for place, (grad, version) in zip(self.layout.places, self._shown, strict=False)
        )

    @torch.no_grad()
    def collect(self) -> list[torch.Tensor]:
        """Return flat buffers that hold ``p.grad`` as it is now, zero where it is None."""
        flats = self.target()
        for place in self.layout.places:
            grad, view = place.parameter.grad, self.layout.view(flats, place)
            if grad is None:
                view.zero_()
            elif grad.data_ptr() != view.data_ptr():
                view.copy_(grad)
        return flats

    def reset(self) -> None:
        """The step is over: give all node buffers back."""
        self.drop_slot()
        self._pool.extend(self.nodes.values())
        self.nodes.clear()
        self.used = [False] * len(self.layout.places)

    def _take(self) -> list[torch.Tensor]:
        return self._pool.pop() if self._pool else self.layout.empty()

    def _on_gradient(self, index: int) -> Callable[[torch.Tensor], None]:
        def note(parameter: torch.Tensor) -> None:
            if self._open is None:
                return  # a backward of the user's own, between steps or after the loop
            if not self._inside:
                raise UsageError(
                    f"parameter {self.layout.places[index].name} got a gradient outside of step.backward: "
                    "call step.backward(loss) instead of loss.backward()"
                )
            if parameter.grad is not self._views[index]:
                self._take_over(index)
            self._slot_used[index] = True

        return note
