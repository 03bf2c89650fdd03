"""torchsnapshot's async_take."""

from __future__ import annotations

import torch
import torchsnapshot
import trainer


class TorchSnapshot(trainer.Method):
    def __init__(self, state: trainer.State) -> None:
        self._state = state
        self._tensors = state.tensors()
        self._pending: torchsnapshot.snapshot.PendingSnapshot | None = None
        self._taken: torchsnapshot.Snapshot | None = None

    def save(self, version: int) -> None:
        self.finish()
        where = str(self._state.place / str(version))
        held = {"state": torchsnapshot.StateDict(**self._tensors)}
        self._pending = torchsnapshot.Snapshot.async_take(where, held)

    def finish(self) -> None:
        if self._pending is not None:
            self._taken = self._pending.wait()
            self._pending = None

    def loaded(self) -> trainer.Tensors:
        empty = {name: torch.empty_like(tensor) for name, tensor in self._tensors.items()}
        held = torchsnapshot.StateDict(**empty)
        self._taken.restore({"state": held})
        return dict(held)


if __name__ == "__main__":
    trainer.main(lambda state, _: TorchSnapshot(state))
