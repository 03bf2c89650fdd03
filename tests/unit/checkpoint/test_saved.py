"""A checkpoint is complete and verified, or ignored, or a clear error."""

import errno
import json
import os
import pickle
import resource
import signal
import subprocess
import sys

import msgspec
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from hpresil.base.errors import DataError
from hpresil.checkpoint import manifest, saved
from hpresil.snapshot.tracked import Tracked

IDENTITY = {"slots": "8", "model": "net"}


DTYPES = [
    torch.float16, torch.float64, torch.int64, torch.int8, torch.bool, torch.uint8, torch.uint16,
    torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.float8_e5m2,
]  # fmt: skip


class Many(nn.Module):
    """Buffers of many dtypes and shapes, tied and non-contiguous parameters."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.turned = nn.Parameter(torch.randn(3, 7).t())
        self.low = nn.Parameter(torch.randn(3, 3).bfloat16())
        flat = torch.randn(8)
        self.one, self.two = nn.Parameter(flat[:3]), nn.Parameter(flat[3:])
        for dtype in DTYPES:
            name = str(dtype).removeprefix("torch.")
            self.register_buffer(name, (torch.rand(3, 2) * 3 + seed).to(dtype))
            self.register_buffer(f"{name}_scalar", torch.tensor(seed).to(dtype))
            self.register_buffer(f"{name}_empty", torch.empty(0, 2).to(dtype))
        self.register_buffer("wide", torch.rand(2, 1).expand(2, 6))


def training(seed=0, steps=1):
    model = Many(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(steps):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
    return Tracked({"model": model, "optimizer": optimizer})


def put(directory, version=3, seed=0):
    tracked = training(seed)
    return tracked, saved.save(directory, tracked.capture(), version=version, identity=IDENTITY)


def test_everything_comes_back_bit_for_bit(tmp_path):
    tracked, path = put(tmp_path / "not" / "there" / "yet")
    assert path.name == "step-00000003"
    version, state, identity = saved.load(path)
    assert (version, identity, state.digest()) == (3, IDENTITY, tracked.digest())
    assert [e.name for e in state.tensors] == [e.name for e in tracked.capture().tensors]
    other = training(seed=1, steps=0)
    other.restore(state)
    assert other.digest() == tracked.digest()


def test_the_file_is_plain_safetensors(tmp_path):
    tracked, path = put(tmp_path)
    loaded = load_file(path / "state.safetensors")
    for entry in tracked.capture().tensors:
        if entry.dtype not in (torch.complex64, torch.complex128, torch.uint16):
            assert loaded[entry.name].dtype == entry.dtype
            assert loaded[entry.name].shape == entry.shape
            raw = loaded[entry.name].contiguous().flatten().view(torch.uint8)
            assert torch.equal(raw, entry.tensor.contiguous().flatten().view(torch.uint8))


def test_the_record_and_the_list_of_tensors_can_be_read_alone(tmp_path):
    tracked = training()
    path = saved.save(tmp_path, tracked.capture(), version=1, identity={}, record={"lines": 4})
    told = saved.describe(path)
    assert (told.version, told.record) == (1, {"lines": 4})
    assert told.tensors[0].name == "model.turned"


def test_the_newest_complete_one_is_found(tmp_path):
    assert saved.newest(tmp_path) is None
    assert saved.newest(tmp_path / "missing") is None
    put(tmp_path, version=9)
    put(tmp_path, version=100000000)
    assert saved.newest(tmp_path).name == "step-100000000"
    (tmp_path / "step-999999999").mkdir()
    (tmp_path / "notes").write_text("x")
    assert saved.newest(tmp_path).name == "step-100000000"
    (tmp_path / "step-100000000" / "COMMITTED").unlink()
    assert saved.newest(tmp_path).name == "step-00000009"
    os.truncate(tmp_path / "step-00000009" / "state.safetensors", 50)
    assert saved.newest(tmp_path) is None


def test_saving_a_version_again_replaces_it(tmp_path):
    put(tmp_path, seed=0)
    tracked, path = put(tmp_path, seed=1)
    assert os.listdir(tmp_path) == ["step-00000003"]
    assert saved.load(path)[1].digest() == tracked.digest()


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json", "COMMITTED"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "flipped", "foreign"])
def test_damage_is_an_error_that_names_the_file(tmp_path, name, damage):
    _, path = put(tmp_path)
    file = path / name
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        place = data.index(b"crc32c") + 12 if name == "COMMITTED" else len(data) // 2
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    else:
        file.write_bytes(b"PK\x03\x04" * 100)
    with pytest.raises(DataError) as caught:
        saved.load(path)
    blamed = "manifest.json" if (name, damage) == ("COMMITTED", "flipped") else name
    assert blamed in str(caught.value)
    assert str(path) in str(caught.value)


def test_another_format_is_refused_with_both_numbers(tmp_path):
    _, path = put(tmp_path)
    marker = json.loads((path / "COMMITTED").read_text())
    (path / "COMMITTED").write_text(json.dumps({**marker, "format_version": 2}))
    with pytest.raises(
        DataError, match="has format hpresil-checkpoint 2, this hpresil reads hpresil-checkpoint 1"
    ):
        saved.load(path)


def test_a_directory_that_is_no_checkpoint(tmp_path):
    put(tmp_path)
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="is no complete checkpoint"):
            saved.load(path)


def reseal(path, change):
    """Change the manifest and seal it again, as a writer with a defect would."""
    told = json.loads((path / "manifest.json").read_text())
    change(told)
    body = json.dumps(told).encode()
    (path / "manifest.json").write_bytes(body)
    marker = manifest.Marker(manifest.FORMAT, manifest.FORMAT_VERSION, manifest.sum_of(body))
    (path / "COMMITTED").write_bytes(msgspec.json.encode(marker))


@pytest.mark.parametrize(
    "change",
    [
        lambda told: told["tensors"].pop(),
        lambda told: told["tensors"][0].update(dtype="float64"),
        lambda told: told["tensors"][0].update(shape=[2]),
        lambda told: told["tensors"][0].update(section="elsewhere"),
        lambda told: told.update(files={}),
        lambda told: told.update(values=""),
        lambda told: told.update(surplus=1),
    ],
)
def test_a_manifest_that_contradicts_the_tensors_is_refused(tmp_path, change):
    _, path = put(tmp_path)
    reseal(path, change)
    with pytest.raises(DataError):
        saved.load(path)


def test_a_disk_that_refuses_to_grow_leaves_nothing_behind(tmp_path):
    state = training().capture()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(OSError, match=r"version 4 \(\d+ bytes\) could not be saved in ") as caught:
            saved.save(tmp_path, state, version=4, identity={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.errno == errno.EFBIG
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("failing", range(5))
def test_a_disk_that_fails_at_any_sync_leaves_nothing_new_behind(tmp_path, monkeypatch, failing):
    tracked, _ = put(tmp_path, version=1)
    calls = []

    def fsync(fd):
        calls.append(fd)
        if len(calls) == failing + 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        saved.save(tmp_path, tracked.capture(), version=2, identity={})
    published = failing == 4  # only the sync of the parent came after the rename
    assert set(os.listdir(tmp_path)) == {"step-00000001"} | ({"step-00000002"} if published else set())


WRITER = """
import os, signal, sys
import torch
from hpresil.checkpoint import saved
from hpresil.snapshot.tracked import Tracked
count = 0
def fsync(fd):
    global count
    count += 1
    if count == 2:
        print("stopped", flush=True)
        signal.pause()
os.fsync = fsync
saved.save(sys.argv[1], Tracked({"model": torch.nn.Linear(2, 2)}).capture(), version=5, identity={})
"""


def test_what_a_killed_writer_left_is_ignored_then_removed_but_not_while_it_lives(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "stopped\n"
        partial = f".step-00000005.partial-{writer.pid}"
        assert os.listdir(tmp_path) == [partial]
        assert saved.newest(tmp_path) is None
        put(tmp_path, version=6)
        assert sorted(os.listdir(tmp_path)) == [partial, "step-00000006"]
        writer.send_signal(signal.SIGKILL)
        assert writer.wait(10) == -signal.SIGKILL
    assert saved.newest(tmp_path).name == "step-00000006"
    put(tmp_path, version=7)
    assert sorted(os.listdir(tmp_path)) == ["step-00000006", "step-00000007"]


def test_nothing_is_unpickled(tmp_path, monkeypatch):
    def forbidden(*args, **kwargs):
        raise AssertionError("unpickled")

    _, path = put(tmp_path)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    saved.load(path)
