"""Snapshots of a plain training script: taken beside it, complete before its state changes, found again."""

import gc
import os

import pytest
import torch
from torch import nn

import hpresil
from hpresil import native
from hpresil.base.errors import ConfigError, Refused, StateLost, UsageError
from hpresil.snapshot import filling, frame, snapshots as module
from hpresil.snapshot.snapshots import Snapshots
from hpresil.snapshot.tracked import Tracked
from trainings import Training


def test_every_version_comes_back_bit_for_bit(training, taken):
    snapshots = taken()
    digests = {}
    for number in range(5):
        training.step(number)
        digests[number + 1] = training.digest()
        snapshots.begin(number + 1)
    training.forward_backward(9)  # BatchNorm's buffers change while version 5 is being copied
    snapshots.wait()
    assert snapshots.versions() == [5, 4]
    for version in (4, 5, 4):
        assert snapshots.restore(version) == version
        assert training.digest() == digests[version]


def test_training_goes_on_from_a_snapshot_as_if_nothing_had_happened(training, taken):
    snapshots = taken()
    for number in range(3):
        training.step(number)
    snapshots.begin(3)
    for number in range(3, 6):
        training.step(number)
    expected = training.digest()
    assert snapshots.restore() == 3
    for number in range(3, 6):
        training.step(number)
    assert training.digest() == expected


def test_the_optimizer_waits_by_itself(training, taken):
    training.step(0)
    snapshots = taken(threads=0)  # nobody copies before somebody waits
    snapshots.begin(1)
    assert snapshots.versions() == []
    before = training.digest()
    training.step(1)
    assert snapshots.versions() == [1]
    snapshots.restore(1)
    assert training.digest() == before


def test_a_change_while_it_is_copied_is_an_error_and_no_snapshot(training, taken):
    training.step(0)
    snapshots = taken(threads=0)
    snapshots.begin(1)
    with torch.no_grad():
        training.model[0].bias.add_(1)
    with pytest.raises(UsageError, match=r"model.0.bias was changed while version 1.*call wait\(\)"):
        snapshots.wait()
    assert snapshots.versions() == []
    snapshots.begin(2)
    snapshots.wait()
    assert snapshots.versions() == [2]


def test_the_newest_version_stays_while_another_is_written(training, taken):
    snapshots = taken(threads=0)
    for number in range(4):
        training.step(number)
        snapshots.begin(number + 1)
        assert snapshots.versions() == ([number] if number else [])
        snapshots.wait()
        assert snapshots.versions()[0] == number + 1


def test_the_same_version_again_replaces_it(training, taken):
    snapshots = taken()
    training.step(0)
    snapshots.begin(1)
    training.step(1)
    after = training.digest()
    snapshots.begin(1)
    snapshots.wait()
    assert snapshots.versions() == [1]
    training.step(2)
    snapshots.restore(1)
    assert training.digest() == after


def test_a_frame_that_has_become_too_small_is_replaced(taken):
    model = nn.Linear(300, 300)
    optimizer = torch.optim.Adam(model.parameters())
    snapshots = taken({"model": model, "optimizer": optimizer})
    snapshots.begin(0)  # without moments: a third of what comes
    model(torch.ones(1, 300)).sum().backward()
    optimizer.step()
    snapshots.begin(1)
    snapshots.wait()
    assert snapshots.versions() == [1, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0.0}, "share=0.0"),
        ({"frames": 1}, "cannot hold one version while another is written"),
        ({"fds": [0, 1], "directory": "x"}, "not both"),
    ],
)
def test_senseless_settings_are_refused(training, settings, message):
    with pytest.raises(ConfigError, match=message):
        Snapshots(training.objects, **settings)


def test_what_is_asked_for_and_not_there_is_named(training, taken):
    snapshots = taken()
    assert snapshots.restore() is None
    with pytest.raises(StateLost, match="version 7 is not held here; there are: none"):
        snapshots.restore(7)
    with pytest.raises(UsageError, match="from 0 on, not -1"):
        snapshots.begin(-1)
    with pytest.raises(ConfigError, match="nothing to take snapshots of"):
        Snapshots({})
    with pytest.raises(ConfigError, match="w is an array among modules"):
        Snapshots({**training.objects, "w": torch.zeros(3)})


def test_closed_snapshots_say_so_and_let_the_optimizer_step(training, taken):
    snapshots = taken()
    snapshots.begin(0)
    snapshots.close()
    training.step(0)
    with pytest.raises(UsageError, match="closed"):
        snapshots.begin(1)


def test_a_forked_child_is_told_to_make_its_own(training, taken, monkeypatch):
    snapshots = taken()
    with monkeypatch.context() as child:
        child.setattr(os, "getpid", lambda: -1)
        with pytest.raises(UsageError, match="belong to the parent process"):
            snapshots.begin(1)


def test_the_core_and_the_package_read_each_others_frames(training, taken):
    training.step(0)
    state = Tracked(training.objects).capture()
    fds = [native.memfd("held", filling.size(state)) for _ in range(2)]
    mapping = native.Mapping(fds[0], filling.size(state))
    filling.fill(mapping, state, version=7)
    assert native.sealed_version(mapping) == 7
    snapshots = taken(fds=fds)
    assert snapshots.versions() == [7]
    snapshots.begin(8)
    snapshots.wait()
    assert frame.read(fds[1])[0] == 8
    assert frame.read(fds[1])[1].digest() == state.digest()
    with memoryview(mapping) as memory:
        memory[100] ^= 1
    assert native.sealed_version(mapping) is None
    for fd in fds:
        os.close(fd)


def test_a_holder_of_the_memory_keeps_the_versions(training):
    fds = [native.memfd("held") for _ in range(2)]
    first = Snapshots(training.objects, fds=fds, threads=1)
    training.step(0)
    first.begin(1)
    first.close()
    before = training.digest()
    other = Training(seed=5)
    with Snapshots(other.objects, fds=fds, threads=1) as second:
        assert second.restore() == 1
        assert other.digest() == before
    assert frame.read(fds[0])[0] == 1, "its memory is not the snapshots' to remove"
    gc.collect()
    for fd in fds:
        os.close(fd)


def test_another_model_is_refused(training, taken, tmp_path):
    first = taken(directory=tmp_path / "frames")
    first.begin(0)
    first.close()
    model = nn.Linear(2, 2)
    second = taken({"model": model}, directory=tmp_path / "frames")
    before = model.weight.clone()
    with pytest.raises(Refused, match=r"parameter model\.weight exists here"):
        second.restore()
    assert torch.equal(model.weight, before)


@pytest.mark.parametrize(
    ("held", "expected"), [([[3, 2], [2, 1]], 2), ([[], []], None), ([[3, 2], [3, 2]], 3), ([[5]], 5)]
)
def test_ranks_go_on_from_the_newest_version_that_all_have(held, expected, monkeypatch):
    ranks_hold(held, monkeypatch)
    assert module._common(held[0]) == expected


def test_ranks_without_a_version_in_common_do_not_begin_anew(monkeypatch):
    ranks_hold([[3, 2], []], monkeypatch)
    with pytest.raises(StateLost, match=r"no version is held by every rank \(by rank: \[\[3, 2\], \[\]\]\)"):
        module._common([3, 2])


def ranks_hold(held, monkeypatch):
    def gather(into, mine):
        into[:] = held

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: len(held))
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)


def test_the_name_is_public_and_lists_what_there_is():
    assert hpresil.snapshot.Snapshots is Snapshots
    with pytest.raises(AttributeError, match="it has: HeldPlace, Snapshots"):
        hpresil.snapshot.Nothing  # noqa: B018
