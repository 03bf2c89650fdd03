"""A frame is either sealed and whole, or a clear error."""

import gc
import os
import random
import threading

import msgspec
import pytest
import torch
from torch import nn

from hpresil import native
from hpresil.base.errors import Refused, StateTorn, TransferFailed
from hpresil.snapshot import filling, frame, layout, preface
from hpresil.snapshot.preface import SECTIONS
from hpresil.snapshot.tracked import Tracked


def training(seed=0, steps=2):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    for _ in range(steps):
        model(torch.ones(2, 2, 5, 5)).square().sum().backward()
        optimizer.step()
        scheduler.step()
    return Tracked({"model": model, "optimizer": optimizer, "scheduler": scheduler})


class Memory:
    """A memory file with a writable mapping for the test to look into."""

    def __init__(self, nbytes):
        self.fd = native.memfd("test-frame", nbytes)
        self.mapping = native.Mapping(self.fd, nbytes)

    def bytes_at(self, start, length):
        with memoryview(self.mapping) as memory:
            return bytes(memory[start : start + length])

    def put(self, start, data):
        with memoryview(self.mapping) as memory:
            memory[start : start + len(data)] = data

    def flip(self, position, bit=0):
        self.put(position, bytes([self.bytes_at(position, 1)[0] ^ 1 << bit]))


@pytest.fixture
def memory():
    made = []

    def make(nbytes):
        made.append(Memory(nbytes))
        return made[-1]

    yield make
    gc.collect()
    for one in made:
        one.mapping.close()
        os.close(one.fd)


@pytest.fixture
def filled(memory):
    """A training and a sealed frame of it."""
    tracked = training()
    state = tracked.capture()
    made = memory(filling.size(state))
    filling.fill(made.mapping, state, version=7, generation=3)
    return tracked, made


def row_of(fd, name):
    return next(row for row in frame.Frame(fd)._rows if row.name == name)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_is_read_is_what_was_filled(filled, threads):
    tracked, memory = filled
    version, state = frame.read(memory.fd)
    assert (version, state.digest()) == (7, tracked.digest())
    other = training(seed=1, steps=0)
    assert frame.restore(memory.mapping, other, version=7, threads=threads) == (7, state.nbytes)
    assert other.digest() == tracked.digest()


def test_tensors_are_aligned_and_parameters_come_first(filled):
    _, memory = filled
    opened = frame.Frame(memory.fd)
    assert (opened.version, opened.generation) == (7, 3)
    offsets = [row.offset for row in opened._rows]
    assert offsets == sorted(offsets)
    assert all(offset % layout.TENSOR_ALIGNMENT == 0 for offset in offsets)
    assert [e.section for e in opened.state.tensors] == sorted(
        (e.section for e in opened.state.tensors), key=SECTIONS.index
    )


def test_sections_can_be_restored_one_by_one(filled):
    tracked, memory = filled
    other = training(seed=1, steps=0)
    opened = frame.Frame(memory.fd)
    restoration = other.prepare(opened.state)
    opened.copy(restoration, "parameters")
    there = {e.name: e.tensor for e in tracked.capture().tensors}
    assert all(torch.equal(p, there[name]) for name, p in other.parameters)
    assert not other.optimizers["optimizer"].state
    for section in SECTIONS[1:]:
        opened.copy(restoration, section)
    restoration.finish()
    assert other.digest() == tracked.digest()


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


def contiguous(seed=0, steps=2):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
    return Tracked({"model": model, "optimizer": optimizer})


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
    restoration = training(seed=1).prepare(opened.state)
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
    channels_last = training()
    assert not channels_last.prepare(channels_last.capture()).may_finish_first()


def test_a_restored_worker_does_not_depend_on_the_frame(filled):
    tracked, memory = filled
    other = training(seed=1, steps=0)
    frame.restore(memory.fd, other)
    memory.put(0, bytes(memory.mapping.nbytes))
    assert other.digest() == tracked.digest()


def test_restoring_counts_as_a_change_of_every_tensor(filled):
    _, memory = filled
    other = training(seed=1, steps=1)
    other.mark()
    frame.restore(memory.fd, other)
    assert {name for name, _ in other.parameters} <= set(other.changed_in_forward())


def test_a_frame_may_be_filled_again(filled):
    _, memory = filled
    newer = training(seed=2, steps=3)
    filling.fill(memory.fd, newer.capture(), version=8, generation=3)
    version, state = frame.read(memory.fd)
    assert (version, state.digest()) == (8, newer.digest())


def test_views_keep_the_mapping_alive(filled):
    tracked, memory = filled
    _, state = frame.read(memory.fd)
    tensors = [entry.tensor for entry in state.tensors]
    del state
    gc.collect()
    assert torch.equal(tensors[0], tracked.parameters[0][1])


@pytest.mark.parametrize("missing", [1, 4096])
def test_a_frame_too_small_is_refused_before_anything_is_written(memory, missing):
    state = training().capture()
    needed = layout.plan(state).frame_bytes
    small = memory(needed - missing)
    small.put(0, b"\x01" * 8192)
    with pytest.raises(
        TransferFailed, match=f"needs a frame of {needed} bytes, this one has {needed - missing}"
    ):
        filling.fill(small.mapping, state, version=1)
    assert small.bytes_at(0, 8192) == b"\x01" * 8192


def test_a_frame_has_room_for_values_that_grow():
    tracked = training()
    before = tracked.capture()
    tracked.optimizers["optimizer"].param_groups[0]["note"] = "x" * 1000
    assert layout.plan(tracked.capture()).frame_bytes <= filling.size(before)


@pytest.mark.parametrize(
    ("nbytes", "reason"),
    [(0, "truncated: 0 bytes"), (100, "truncated: 100 bytes"), (8192, "is not a snapshot frame")],
)
def test_memory_that_was_never_filled(nbytes, reason):
    fd = native.memfd("never-filled", nbytes)
    with pytest.raises(TransferFailed, match=reason):
        frame.read(fd)
    os.close(fd)


def test_a_foreign_frame(filled):
    _, memory = filled
    memory.put(0, b"PK\x03\x04")
    with pytest.raises(TransferFailed, match="is not a snapshot frame"):
        frame.read(memory.fd)


def test_a_frame_of_another_format(filled):
    _, memory = filled
    memory.put(8, b"\x09")
    with pytest.raises(TransferFailed, match="has format 9, this hpresil reads 3"):
        frame.read(memory.fd)


def test_a_truncated_frame(filled):
    _, memory = filled
    os.ftruncate(memory.fd, 12288)
    with pytest.raises(TransferFailed, match="truncated: 12288 of"):
        frame.read(memory.fd)
    os.ftruncate(memory.fd, memory.mapping.nbytes)


def test_a_frame_whose_writer_died_half_way_is_not_sealed(filled, monkeypatch):
    _, memory = filled

    def die(pairs, threads):
        native.copy_many(pairs[: len(pairs) // 2], threads)
        raise KeyboardInterrupt

    monkeypatch.setattr(filling, "native", _Patched(copy_many=die))
    with pytest.raises(KeyboardInterrupt):
        filling.fill(memory.mapping, training(seed=3).capture(), version=8)
    monkeypatch.undo()
    with pytest.raises(TransferFailed, match="is not sealed"):
        frame.read(memory.fd)


class _Patched:
    """The native core with some functions replaced."""

    def __init__(self, **replaced):
        self.__dict__.update(replaced)

    def __getattr__(self, name):
        return getattr(native, name)


def test_a_damaged_tensor_is_named_and_the_restored_state_is_torn(filled):
    _, memory = filled
    row = row_of(memory.fd, "optimizer.state.model.0.bias.exp_avg")
    memory.flip(row.offset + 5, bit=3)
    with pytest.raises(
        TransferFailed, match=r"tensor optimizer\.state\.model\.0\.bias\.exp_avg in the frame of version 7"
    ):
        frame.read(memory.fd)
    with pytest.raises(StateTorn, match=r"exp_avg .* is worth nothing until it is restored"):
        frame.restore(memory.fd, training(seed=1))


@pytest.mark.parametrize(
    ("place", "part"),
    [("manifest_offset", "a damaged manifest"), ("sums_offset", "damaged checksums of its parameters")],
)
def test_damaged_tables_are_found_before_anything_is_changed(filled, place, part):
    _, memory = filled
    memory.flip(getattr(frame.Frame(memory.fd)._header, place) + 1)
    other = training(seed=1)
    before = other.digest()
    with pytest.raises(TransferFailed, match=part) as caught:
        frame.restore(memory.fd, other)
    assert not isinstance(caught.value, StateTorn)
    assert other.digest() == before


def test_a_damaged_tensor_with_other_strides_is_found_before_it_is_copied(filled):
    _, memory = filled
    memory.flip(row_of(memory.fd, "model.0.weight").offset)
    other = training(seed=1)
    before = other.parameters[0][1].detach().clone()
    with pytest.raises(StateTorn, match=r"tensor model\.0\.weight"):
        frame.restore(memory.fd, other)
    assert torch.equal(other.parameters[0][1], before)


def test_any_flipped_bit_is_noticed(filled):
    _, memory = filled
    opened = frame.Frame(memory.fd)
    header = opened._header
    used = [range(preface.HEADER_BYTES), range(header.sums_offset, header.sums_offset + header.sums_bytes)]
    used += [range(header.manifest_offset, header.manifest_offset + header.manifest_bytes)]
    used += [range(row.offset, row.offset + row.nbytes) for row in opened._rows]
    picker = random.Random(20)
    for _ in range(400):
        position, bit = picker.choice(picker.choice(used)), picker.randrange(8)
        memory.flip(position, bit)
        with pytest.raises(TransferFailed):
            frame.read(memory.fd)
            print(f"seed 20: bit {bit} of byte {position} was not noticed")
        memory.flip(position, bit)
    frame.read(memory.fd)


def test_a_frame_refilled_while_it_is_read_is_noticed(filled):
    tracked, memory = filled
    opened = frame.Frame(memory.fd)
    restoration = training(seed=1).prepare(opened.state)
    filling.fill(memory.mapping, tracked.capture(), version=7, generation=3)
    with pytest.raises(StateTorn, match="was overwritten while it was read"):
        opened.copy(restoration, "parameters")


def test_another_version_than_expected_changes_nothing(filled):
    _, memory = filled
    other = training(seed=1)
    before = other.digest()
    with pytest.raises(
        TransferFailed, match=r"the frame of version 7 \(generation 3\) was found where version 6"
    ):
        frame.restore(memory.fd, other, version=6)
    assert other.digest() == before


def test_a_state_of_another_model_changes_nothing(filled):
    _, memory = filled
    other = Tracked({"model": nn.Linear(2, 2)})
    before = other.digest()
    with pytest.raises(Refused):
        frame.restore(memory.fd, other)
    assert other.digest() == before


def test_a_manifest_that_lies_about_a_tensor_is_refused(filled):
    header = frame.Frame(filled[1].fd)._header
    first = header.sections[0]
    for wrong in (
        {"offset": first.offset - 64},
        {"offset": first.offset + 1},
        {"nbytes": 8},
        {"shape": [-1, -54]},
        {"section": 9},
        {"section": -1},
    ):
        fields = {
            "name": "w",
            "dtype": "float32",
            "shape": [54],
            "section": 0,
            "offset": first.offset,
            "nbytes": 216,
        }
        row = preface.Row(**{**fields, **wrong})
        data = msgspec.msgpack.encode(preface.Manifest(b"", [row]))
        one = preface.Header(**{**header.__dict__, "sums_bytes": 4})
        with pytest.raises(TransferFailed, match="wrong about tensor w"):
            layout.parse_manifest(data, one)
