"""A frame that is read while it is filled: as far as it is sealed, and never for whole before it is."""

import threading

import pytest
import torch
from torch import nn

from hpresil.base.errors import TransferFailed
from hpresil.snapshot import filling, frame
from hpresil.snapshot.preface import SECTIONS
from hpresil.snapshot.tracked import Tracked
from trainings import contiguous, tracked_training


class HalfWay(Exception):
    """A test has seen enough of a fill."""


def before(monkeypatch, section, see):
    """Let ``see`` be called in fills before the first tensor of ``section`` is copied."""
    copy_in = filling._copy_in

    def stop(mapping, plan, state, piece, sums, threads):
        if piece and state.tensors[piece.start].section == section:
            see()
        copy_in(mapping, plan, state, piece, sums, threads)

    monkeypatch.setattr(filling, "_copy_in", stop)


def stop_at(monkeypatch, section):
    """Let fills end before ``section`` is copied."""

    def stop():
        raise HalfWay

    before(monkeypatch, section, stop)


def test_what_a_gradient_needs_can_be_read_while_the_rest_is_filled(memory, monkeypatch):
    source, newcomer = contiguous(), contiguous(seed=1)
    state = source.capture()
    made = memory(filling.size(state))
    stop_at(monkeypatch, "optimizer")
    with pytest.raises(HalfWay):
        filling.fill(made.mapping, state, version=7, generation=3)
    assert frame.holds(made.mapping, 7, 3)
    assert not frame.holds(made.mapping, 6, 3), "another version"
    assert not frame.holds(made.mapping, 7, 2), "an older generation"
    opened = frame.Frame(made.mapping, whole=False)
    restoration = newcomer.prepare(opened.state)
    for section in SECTIONS[:-1]:
        opened.copy(restoration, section)
    assert restoration.may_finish_first()
    restoration.finish()
    there = dict(source.parameters)
    assert all(torch.equal(p, there[name]) for name, p in newcomer.parameters)
    early = sum(entry.section != "optimizer" for entry in state.tensors)
    assert opened.look() == opened.there == early
    looks = []

    def give_up():
        looks.append(1)
        if len(looks) == 3:
            raise HalfWay

    with pytest.raises(HalfWay):
        opened.copy(restoration, "optimizer", between=give_up)


def test_a_reader_follows_the_writer_piece_by_piece(memory, monkeypatch):
    """Whenever the writer has sealed a piece, its reader copies as much as is there, and waits again."""
    monkeypatch.setattr(filling, "PIECE_BYTES", 1)
    source, newcomer = contiguous(), contiguous(seed=1)
    state = source.capture()
    made = memory(filling.size(state))
    go, turn, read = threading.Event(), threading.Event(), []
    copy_in = filling._copy_in

    def step_by_step(mapping, plan, state, piece, sums, threads):
        if piece.start > 0:
            turn.set()
            assert go.wait(10)
            go.clear()
        copy_in(mapping, plan, state, piece, sums, threads)

    monkeypatch.setattr(filling, "_copy_in", step_by_step)
    writer = threading.Thread(target=filling.fill, args=(made.mapping, state), kwargs={"version": 7})
    writer.start()
    assert turn.wait(10)
    opened = frame.Frame(made.mapping, whole=False)
    restoration = newcomer.prepare(opened.state)

    def one_more():
        if turn.is_set():
            read.append(opened.look())
            turn.clear()
            go.set()

    for section in SECTIONS:
        opened.copy(restoration, section, between=one_more)
    restoration.finish()
    writer.join(10)
    assert read == list(range(1, len(state.tensors)))
    assert newcomer.digest() == source.digest()


def test_a_seal_that_moves_while_it_is_looked_at_is_no_damage(memory, monkeypatch):
    """The writer seals two more pieces: one before the header is read, one before the checksums are."""
    monkeypatch.setattr(filling, "PIECE_BYTES", 1)
    state = contiguous().capture()
    made = memory(filling.size(state))
    copy_in, at = filling._copy_in, {}

    def pause(mapping, plan, state, piece, sums, threads):
        if piece.start in (2, 3, 4):
            at[piece.start] = made.bytes_at(0, plan.frame_bytes)
        copy_in(mapping, plan, state, piece, sums, threads)

    monkeypatch.setattr(filling, "_copy_in", pause)
    filling.fill(made.mapping, state, version=7)
    whole = made.bytes_at(0, len(at[2]))
    made.put(0, at[2])
    opened = frame.Frame(made.mapping, whole=False)
    assert opened.there == 2
    made.put(0, at[3])
    page = frame.Frame._page

    def read(self):
        found = page(self)
        made.put(0, at[4])
        return found

    with monkeypatch.context() as patch:
        patch.setattr(frame.Frame, "_page", read)
        assert opened.look() == 2
    assert opened.look() == 4
    made.put(0, whole)
    assert opened.look() == len(state.tensors)


def test_the_rest_can_be_read_as_soon_as_it_is_there(filled):
    source, made = contiguous(), filled[1]
    newcomer = contiguous(seed=1)
    seen = []

    def look():
        opened = frame.Frame(made.mapping, whole=False)
        restoration = newcomer.prepare(opened.state)
        for section in SECTIONS[:-1]:
            opened.copy(restoration, section)
        restoration.finish()
        seen.extend((opened, restoration, opened.there))

    with pytest.MonkeyPatch.context() as patch:
        before(patch, "optimizer", lambda: seen or look())
        filling.fill(made.mapping, source.capture(), version=8, generation=4)
    opened, restoration, early = seen
    assert opened.there == early < len(opened.state.tensors)
    assert opened.look() == len(opened.state.tensors)
    opened.copy(restoration, "optimizer")
    assert newcomer.digest() == source.digest()


def test_a_writer_is_told_when_everything_is_there_that_a_gradient_needs(memory, monkeypatch):
    monkeypatch.setattr(filling, "PIECE_BYTES", 1)
    state = contiguous().capture()
    made = memory(filling.size(state))
    seen = []

    def look():
        seen.append(frame.Frame(made.mapping, whole=False).there)

    filling.fill(made.mapping, state, version=7, on_rest=look)
    assert seen == [sum(entry.section != "optimizer" for entry in state.tensors)]


def test_a_frame_that_is_not_whole_is_no_snapshot(memory, monkeypatch):
    state = contiguous().capture()
    made = memory(filling.size(state))
    stop_at(monkeypatch, "optimizer")
    with pytest.raises(HalfWay):
        filling.fill(made.mapping, state, version=7)
    with pytest.raises(TransferFailed, match="is not sealed: its writer has not finished or died"):
        frame.read(made.fd)


def test_a_frame_that_is_filled_anew_before_it_was_whole_is_noticed(memory, monkeypatch):
    state = contiguous().capture()
    made = memory(filling.size(state))
    stop_at(monkeypatch, "optimizer")
    with pytest.raises(HalfWay):
        filling.fill(made.mapping, state, version=7)
    opened = frame.Frame(made.mapping, whole=False)
    monkeypatch.undo()
    filling.fill(made.mapping, state, version=7)
    with pytest.raises(TransferFailed, match="was overwritten while it was read"):
        opened.look()


def test_a_copy_can_be_given_up(filled, monkeypatch):
    _, made = filled
    monkeypatch.setattr(frame, "PIECE_BYTES", 1)
    opened = frame.Frame(made.mapping)
    restoration = tracked_training(seed=1).prepare(opened.state)
    pieces = []

    def between():
        pieces.append(1)
        if len(pieces) == 3:
            raise HalfWay

    with pytest.raises(HalfWay):
        opened.copy(restoration, "optimizer", between=between)


def test_moments_that_are_not_plain_or_options_that_are_tensors_are_not_left_for_later():
    def may_be_later(**options):
        model = nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(model.parameters(), **options)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        tracked = Tracked({"model": model, "optimizer": optimizer})
        return tracked.prepare(tracked.capture()).may_finish_first()

    assert may_be_later(lr=1e-2)
    assert not may_be_later(lr=torch.tensor(1e-2), capturable=False, foreach=False)
    channels_last = tracked_training()
    assert not channels_last.prepare(channels_last.capture()).may_finish_first()
