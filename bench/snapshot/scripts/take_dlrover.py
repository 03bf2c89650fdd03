"""DLRover's flash checkpoint: the training thread copies into shared memory of a process that stays.

TORCHELASTIC_RUN_ID must be of this process alone: its shared memory and its sockets are named after it.
"""

from __future__ import annotations

import trainer
from dlrover.python.common.storage import PosixDiskStorage
from dlrover.trainer.torch.flash_checkpoint.full_ckpt_engine import FullCheckpointEngine

KEY = "model_states"


class Dlrover(trainer.Method):
    def __init__(self, state: trainer.State) -> None:
        self._tensors, self._path = state.tensors(), str(state.place / "memory")
        self._engine = FullCheckpointEngine(str(state.place), PosixDiskStorage())

    def save(self, version: int) -> None:
        if not self._engine.save_to_memory(version, {KEY: self._tensors}, {KEY: self._path}):
            raise RuntimeError(f"it skipped version {version}")

    def loaded(self) -> trainer.Tensors:
        return self._engine.load()

    def close(self) -> None:
        self._engine.close()


if __name__ == "__main__":
    trainer.main(lambda state, _: Dlrover(state))
