"""torch.save to a file."""

from __future__ import annotations

import torch
import trainer


class TorchSave(trainer.Method):
    def __init__(self, state: trainer.State) -> None:
        self._state, self._tensors = state, state.tensors()
        self._path = state.place

    def save(self, version: int) -> None:
        self._path = self._state.place / str(version)
        torch.save(self._tensors, self._path)

    def loaded(self) -> trainer.Tensors:
        return torch.load(self._path)


if __name__ == "__main__":
    trainer.main(lambda state, _: TorchSave(state))
