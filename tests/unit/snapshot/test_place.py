"""Where frames under plain torchrun are: found by the next process, nobody else's, and gone in the end."""

import os
import subprocess
import sys
import time

import pytest

from hpresil.base.errors import ConfigError, DeadlineExceeded
from hpresil.snapshot import keeper, place
from hpresil.snapshot.snapshots import Snapshots
from trainings import Training


def test_files_are_found_by_the_next_process_and_removed_at_the_end(training, tmp_path):
    place_of_frames = tmp_path / "frames"
    with pytest.raises(ZeroDivisionError), Snapshots(training.objects, directory=place_of_frames) as first:
        training.step(0)
        first.begin(1)
        raise ZeroDivisionError
    before = training.digest()
    other = Training(seed=5)
    with Snapshots(other.objects, directory=place_of_frames) as second:
        assert second.versions() == [1]
        second.restore()
        assert other.digest() == before
    assert not place_of_frames.exists()


def test_frames_of_a_living_process_are_not_taken(training, taken, tmp_path, monkeypatch):
    monkeypatch.setattr(place, "LOCK_S", 0.05)
    taken(directory=tmp_path / "frames")
    with pytest.raises(DeadlineExceeded, match=r"the frames of rank 0 .* another process"):
        Snapshots(training.objects, directory=tmp_path / "frames")


def test_the_keeper_removes_the_directory_when_its_process_ends(tmp_path):
    directory = tmp_path / "frames"
    directory.mkdir()
    (directory / "rank-0.frame-0").write_bytes(b"left behind")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as agent:
        command = [sys.executable, "-I", "-S", keeper.__file__, directory, str(agent.pid)]
        keeping = subprocess.Popen(command)
        assert wait_for((directory / keeper.LOCK).exists)
        subprocess.run(command, timeout=60, check=True)  # one keeper is enough
        assert directory.exists()
        agent.kill()
    assert keeping.wait(30) == 0
    assert not directory.exists()


def wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_directories_of_agents_that_are_gone_are_swept(tmp_path):
    mine = f"{place._namespace()}-{os.getpid()}-{keeper.started(os.getpid())}-abc123"
    reused = f"{place._namespace()}-{os.getpid()}-17-abc123"
    elsewhere = f"{place._namespace() + 1}-{os.getpid()}-17-abc123"
    for name in (mine, reused, elsewhere, "something else"):
        (tmp_path / name).mkdir()
    place.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {mine, elsewhere, "something else"}


def test_a_directory_that_others_may_look_into_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="not a directory of this user alone"):
        place.private(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="not a directory of this user alone"):
        place.private(tmp_path / "link")
