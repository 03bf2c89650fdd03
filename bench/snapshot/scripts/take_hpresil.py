"""hpresil: threads copy with a checksum until the state may change; the trainer then helps with the rest."""

from __future__ import annotations

import trainer

from hpresil.snapshot import Snapshots


class Hpresil(trainer.Method):
    def __init__(self, state: trainer.State) -> None:
        self._state, self._version = state, 0
        self._snapshots = Snapshots(state.objects)

    def save(self, version: int) -> None:
        self._snapshots.begin(version)
        self._version = version

    def before_change(self) -> None:
        self._snapshots.wait()

    def finish(self) -> None:
        self._snapshots.wait()

    def loaded(self) -> trainer.Tensors:
        self._snapshots.restore(self._version)
        return self._state.tensors()

    def close(self) -> None:
        self._snapshots.close(remove=True)


if __name__ == "__main__":
    trainer.main(lambda state, _: Hpresil(state))
