"""torch.distributed.checkpoint, by the option:

sync        save
async       async_save as it is by default, which makes new buffers for every checkpoint
reused      async_save with a stager that keeps its buffers
background  the same, and the stager copies in a thread of its own: the state may change when that is done
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import trainer
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions


class Dcp(trainer.Method):
    def __init__(self, state: trainer.State, option: str) -> None:
        self._state, self._tensors, self._sync = state, state.tensors(), option == "sync"
        self._stager = None
        if option in ("reused", "background"):
            # Neither pinned nor shared nor non-blocking: those are for devices and other processes.
            self._stager = DefaultStager(StagingOptions(False, False, option == "background", False))
        self._version, self._pending = 0, None
        dist.init_process_group("gloo", init_method=f"file://{state.place}/store", rank=0, world_size=1)
        warnings.filterwarnings("ignore", category=UserWarning)

    def save(self, version: int) -> None:
        self.finish()
        self._version = version
        where = self._state.place / str(version)
        if self._sync:
            dcp.save(self._tensors, checkpoint_id=where)
        else:
            self._pending = dcp.async_save(self._tensors, checkpoint_id=where, async_stager=self._stager)

    def before_change(self) -> None:
        if hasattr(self._pending, "staging_completion"):
            self._pending.staging_completion.result()

    def finish(self) -> None:
        pending: Any = self._pending
        if pending is not None:
            getattr(pending, "upload_completion", pending).result()
            self._pending = None

    def loaded(self) -> trainer.Tensors:
        held = {name: torch.empty_like(tensor) for name, tensor in self._tensors.items()}
        dcp.load(held, checkpoint_id=self._state.place / str(self._version))
        return held

    def close(self) -> None:
        if self._stager is not None:
            self._stager.close()
        dist.destroy_process_group()


if __name__ == "__main__":
    trainer.main(Dcp)
