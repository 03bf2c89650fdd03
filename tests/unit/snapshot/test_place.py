"""Where frames under plain torchrun are: found by the next process, nobody else's, and gone in the end."""

import contextlib
import os
import subprocess
import sys
import threading
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
    directory = tmp_path / "home" / "frames"
    directory.mkdir(parents=True)
    (directory / "rank-0.frame-0").write_bytes(b"left behind")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as agent:
        command = [sys.executable, "-I", "-S", keeper.__file__, directory, str(agent.pid)]
        keeping = subprocess.Popen(command)
        assert wait_for((directory / keeper.LOCK).exists)
        subprocess.run(command, timeout=60, check=True)  # one keeper is enough
        assert directory.exists()
        agent.kill()
    assert keeping.wait(30) == 0
    assert not directory.parent.exists(), "nothing else was in it"


@pytest.mark.parametrize("others", [True, False])
def test_when_the_last_worker_has_removed_the_directory_its_keeper_leaves_what_is_others(tmp_path, others):
    directory = tmp_path / "home" / "frames"
    directory.mkdir(parents=True)
    command = [sys.executable, "-I", "-S", keeper.__file__, directory, str(os.getpid())]
    with subprocess.Popen(command) as keeping:
        assert wait_for((directory / keeper.LOCK).exists)
        if others:
            (tmp_path / "home" / "another agent's").mkdir()
        (directory / keeper.LOCK).unlink()
        directory.rmdir()
        assert keeping.wait(30) == 0
    assert (tmp_path / "home").exists() == others


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


@pytest.fixture
def torchrun(tmp_path, monkeypatch):
    """This process is a worker of torchrun, whose shared memory is a directory without keepers."""
    monkeypatch.setattr(place, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(place, "keep", lambda directory, agent: None)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a job")
    return tmp_path / f"hpresil-{os.getuid()}"


def end_of_another_job(home, *, often, fired):
    """Return what removes all that is empty in ``home``, and ``home``, the first ``often`` times."""

    def removes(*_):
        if len(fired) < often:
            for directory in home.iterdir():
                directory.rmdir()
            home.rmdir()
            fired.append(home)

    return removes


@pytest.mark.parametrize("between", ["sweep", "keep"])
def test_another_job_that_ends_just_now_takes_nothing_from_one_that_begins(torchrun, monkeypatch, between):
    """Between its making of the outer directory and its own in there, or before the first file in that."""
    fired = []
    monkeypatch.setattr(place, between, end_of_another_job(torchrun, often=3, fired=fired))
    files = place.files(None, 0, 2)
    assert len(fired) == 3, "the directory was removed meanwhile"
    assert torchrun.stat().st_mode & 0o777 == 0o700
    assert sorted(path.name for path in next(torchrun.iterdir()).iterdir()) == [
        "rank-0.frame-0",
        "rank-0.frame-1",
        "rank-0.lock",
    ]
    files.close(remove=True)
    assert list(torchrun.iterdir()) == []


def test_a_directory_that_is_removed_again_and_again_is_an_error_in_the_end(torchrun, monkeypatch):
    fired = []
    monkeypatch.setattr(place, "LOCK_S", 0.05)
    monkeypatch.setattr(place, "keep", end_of_another_job(torchrun, often=10**9, fired=fired))
    with pytest.raises(DeadlineExceeded, match=r"rank 0 have no directory: .* for 0.05 s"):
        place.files(None, 0, 2)
    assert len(fired) > 1


def test_an_interpreter_that_is_gone_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ConfigError, match="'/nowhere/python' cannot be started"):
        place.keep(tmp_path, os.getpid())


def test_jobs_that_begin_and_end_at_once_do_not_disturb_each_other(torchrun):
    over, removed = threading.Event(), []

    def ends_all_the_time():
        while not over.is_set():
            with contextlib.suppress(OSError):
                torchrun.rmdir()
                removed.append(1)

    other = threading.Thread(target=ends_all_the_time)
    other.start()
    try:
        for _ in range(100):
            files = place.files(None, 0, 2)
            assert all(os.fstat(fd).st_nlink == 1 for fd in files.fds)
            files.close(remove=True)
            assert wait_for(lambda: not torchrun.exists())
    finally:
        over.set()
        other.join()
    assert len(removed) >= 100


def test_a_directory_that_others_may_look_into_is_refused(tmp_path):
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(ConfigError, match="not a directory of this user alone"):
        place.private(tmp_path / "open")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="not a directory of this user alone"):
        place.private(tmp_path / "link")
