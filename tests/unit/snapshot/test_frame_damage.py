"""Frames that are foreign, cut off, torn or damaged: each is a clear error that names what is wrong."""

import os
import random

import msgspec
import pytest
import torch

from hpresil import native
from hpresil.base.errors import StateTorn, TransferFailed
from hpresil.snapshot import filling, frame, layout, preface
from trainings import tracked_training


def row_of(fd, name):
    return next(row for row in frame.Frame(fd)._rows if row.name == name)


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
        filling.fill(memory.mapping, tracked_training(seed=3).capture(), version=8)
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
        frame.restore(memory.fd, tracked_training(seed=1))


@pytest.mark.parametrize(
    ("place", "part"),
    [("manifest_offset", "a damaged manifest"), ("sums_offset", "damaged checksums of its parameters")],
)
def test_damaged_tables_are_found_before_anything_is_changed(filled, place, part):
    _, memory = filled
    memory.flip(getattr(frame.Frame(memory.fd)._header, place) + 1)
    other = tracked_training(seed=1)
    before = other.digest()
    with pytest.raises(TransferFailed, match=part) as caught:
        frame.restore(memory.fd, other)
    assert not isinstance(caught.value, StateTorn)
    assert other.digest() == before


def test_a_damaged_tensor_with_other_strides_is_found_before_it_is_copied(filled):
    _, memory = filled
    memory.flip(row_of(memory.fd, "model.0.weight").offset)
    other = tracked_training(seed=1)
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
    restoration = tracked_training(seed=1).prepare(opened.state)
    filling.fill(memory.mapping, tracked.capture(), version=7, generation=3)
    with pytest.raises(StateTorn, match="was overwritten while it was read"):
        opened.copy(restoration, "parameters")


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
