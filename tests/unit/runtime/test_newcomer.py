"""A newcomer that looks into a frame while its source still fills it."""

import threading
from types import SimpleNamespace

from hpresil.base.errors import TransferFailed
from hpresil.runtime import newcomer


class Frames:
    def __len__(self):
        return 1

    def filled(self, number):
        return f"frame {number}"


def test_a_frame_whose_seal_is_just_being_moved_is_looked_at_again(monkeypatch):
    engine = SimpleNamespace(
        changed=threading.Condition(),
        check=lambda: None,
        state=SimpleNamespace(installed=1),
        frame=None,
        config=SimpleNamespace(outside_timeout_s=5.0),
    )
    looked = []

    def opened(mapping, *, whole):
        looked.append(mapping)
        if len(looked) < 3:
            raise TransferFailed("the frame is not sealed")
        return "the frame"

    monkeypatch.setattr(newcomer, "holds", lambda *where: True)
    monkeypatch.setattr(newcomer, "Frame", opened)
    comer = newcomer.Newcomer(SimpleNamespace(engine=engine), Frames(), threads=1)
    assert comer._await_frame(generation=1, version=5) == "the frame"
    assert looked == ["frame 0"] * 3


def test_a_frame_that_cannot_be_mapped_is_told_so_that_another_source_is_asked(monkeypatch):
    class Unmappable(Frames):
        def filled(self, number):
            raise OSError(12, "Cannot allocate memory")

    waits, told = [], []
    engine = SimpleNamespace(
        changed=threading.Condition(),
        check=lambda: None,
        stamp=lambda phase: None,
        wait_until=lambda *what: waits.append(what),
        state=SimpleNamespace(installed=1, decided=1, target=5),
        frame=None,
        config=SimpleNamespace(outside_timeout_s=5.0),
    )
    trainer = SimpleNamespace(engine=engine, where=dict)
    comer = newcomer.Newcomer(trainer, Unmappable(), threads=1)
    monkeypatch.setattr(comer, "_failed", lambda generation, error: told.append((generation, error.errno)))
    comer.copy_state()
    assert told == [(1, 12)]
    assert len(waits) == 1
