"""Checkpoints by torch.distributed.checkpoint in BENCH_OUT/saved, the newest named by a file."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict


class Checkpoints:
    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer, every: int) -> None:
        self._model, self._optimizer, self._every = model, optimizer, every
        self._place = Path(os.environ["BENCH_OUT"]) / "saved"
        self._newest = self._place / "newest"

    def restore(self) -> int:
        """Load the newest checkpoint and return the step to go on with, 0 without one."""
        if not self._newest.exists():
            return 0
        step = int(self._newest.read_text())
        state = self._state()
        dcp.load(state, checkpoint_id=self._place / str(step))
        set_state_dict(
            self._model,
            self._optimizer,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizer"],
        )
        return step

    def after(self, step: int) -> bool:
        """Save if it is time to; return whether it was."""
        if (step + 1) % self._every:
            return False
        dcp.save(self._state(), checkpoint_id=self._place / str(step + 1))
        dist.barrier()
        if dist.get_rank() == 0:
            written = self._newest.with_suffix(".new")
            written.write_text(str(step + 1))
            written.replace(self._newest)
        dist.barrier()
        return True

    def _state(self) -> dict[str, object]:
        model, optimizer = get_state_dict(self._model, self._optimizer)
        return {"model": model, "optimizer": optimizer}
