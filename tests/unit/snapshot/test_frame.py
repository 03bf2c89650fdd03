"""A frame that is sealed holds what was filled in, and changes nothing where it does not belong."""

import gc

import pytest
import torch
from torch import nn

from hpresil.base.errors import Refused, TransferFailed
from hpresil.snapshot import filling, frame, layout
from hpresil.snapshot.preface import SECTIONS
from hpresil.snapshot.tracked import Tracked
from trainings import tracked_training


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_what_is_read_is_what_was_filled(filled, threads):
    tracked, memory = filled
    version, state = frame.read(memory.fd)
    assert (version, state.digest()) == (7, tracked.digest())
    other = tracked_training(seed=1, steps=0)
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
    other = tracked_training(seed=1, steps=0)
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


def test_a_restored_worker_does_not_depend_on_the_frame(filled):
    tracked, memory = filled
    other = tracked_training(seed=1, steps=0)
    frame.restore(memory.fd, other)
    memory.put(0, bytes(memory.mapping.nbytes))
    assert other.digest() == tracked.digest()


def test_restoring_counts_as_a_change_of_every_tensor(filled):
    _, memory = filled
    other = tracked_training(seed=1, steps=1)
    other.mark()
    frame.restore(memory.fd, other)
    assert {name for name, _ in other.parameters} <= set(other.changed_in_forward())


def test_a_frame_may_be_filled_again(filled):
    _, memory = filled
    newer = tracked_training(seed=2, steps=3)
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
    state = tracked_training().capture()
    needed = layout.plan(state).frame_bytes
    small = memory(needed - missing)
    small.put(0, b"\x01" * 8192)
    with pytest.raises(
        TransferFailed, match=f"needs a frame of {needed} bytes, this one has {needed - missing}"
    ):
        filling.fill(small.mapping, state, version=1)
    assert small.bytes_at(0, 8192) == b"\x01" * 8192


def test_a_frame_has_room_for_values_that_grow():
    tracked = tracked_training()
    before = tracked.capture()
    tracked.optimizers["optimizer"].param_groups[0]["note"] = "x" * 1000
    assert layout.plan(tracked.capture()).frame_bytes <= filling.size(before)


def test_another_version_than_expected_changes_nothing(filled):
    _, memory = filled
    other = tracked_training(seed=1)
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
