"""An optimizer step that the device takes only if every rank has voted for it, while no host waits.

The flag is what a fused optimizer knows as ``found_inf``: with 1 neither parameters, moments nor step
counts change. It says 1 from before the vote until all ballots are there; how, is in
csrc/communicator/commit_gate.h. Over tensors in host memory the same gate works at once, when `open` is
called.

The caller gathers the ballots between `close` and `open`, in the device's current stream, and learns later,
from `opened`, what the device has decided: that value is the truth, not the outcome of the collective as the
host saw it.

Not offered: optimizers that are capturable but not fused. They look at no flag, so their step would have to
be undone by copies of all they change; they wait for the vote on the host.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hpresil.base.errors import UsageError
from hpresil.native import CommitGate as NativeGate


class CommitGate:
    """The gate of one group. One thread, one stream: torch's current one of the device, at each call.

    Args:
        ranks: Members of the group.
        device: Where the flag and the ballots lie: a CUDA device or the CPU.

    Attributes:
        flag: float32, no dimensions: 1 no, 0 yes.
        ballots: int64, 1-D, one a rank; the group's ballots are gathered into it between `close` and `open`.
    """

    def __init__(self, ranks: int, device: torch.device) -> None:
        self.flag = torch.ones((), dtype=torch.float32, device=device)
        self.ballots = torch.zeros(ranks, dtype=torch.int64, device=device)
        host = device.type == "cpu"
        self._native = NativeGate(self.flag.data_ptr(), self.ballots.data_ptr(), ranks, host=host)
        self._device = device

    def close(self, generation: int, step: int) -> torch.Tensor:
        """Say no, and return this rank's ballot for the step: int64, 1-D, one element, equal on every rank.

        Does not wait for the device.
        """
        ballot = self._native.close(generation, step, self._stream())
        signed = ballot - (1 << 64) if ballot >= 1 << 63 else ballot
        return torch.full((1,), signed, dtype=torch.int64, device=self._device)

    def open(self) -> None:
        """Say yes if all ballots are there. Once after each `close`; does not wait for the device."""
        self._native.open(self._stream())

    def opened(self) -> bool:
        """Return what the gate says; waits for the device."""
        return float(self.flag) == 0.0

    @contextmanager
    def gated(self, optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Within the block, `optimizer.step()` does nothing while the gate says no.

        Raises:
            UsageError: The optimizer is not fused, so it looks at no flag, or a gradient scaler has set one.
        """
        holder: Any = optimizer
        fused = all(group.get("fused") for group in optimizer.param_groups)
        if not fused or not getattr(optimizer, "_step_supports_amp_scaling", False):
            raise UsageError(
                f"{type(optimizer).__name__} looks at no flag on the device: make it with fused=True, "
                "or wait for the vote on the host before its step"
            )
        before = getattr(optimizer, "found_inf", None)
        if before is not None:
            raise UsageError(
                "the optimizer has a found_inf already: a gradient scaler and a gate cannot share it"
            )
        holder.found_inf = self.flag
        try:
            yield
        finally:
            del holder.found_inf

    def _stream(self) -> int:
        cuda = self._device.type == "cuda"
        return int(torch.cuda.current_stream(self._device).cuda_stream) if cuda else 0
