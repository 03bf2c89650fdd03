import json
import os
import stat

import pytest

from hpresil.base.errors import ConfigError
from hpresil.launch.run_directory import MAX_SOCKET_BASE, RunDirectory, SocketDirectory
from hpresil.membership.journal import Journal
from hpresil.membership.state import Settings, begin


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def opened(path=None, *, resume=False):
    return RunDirectory.open(path, run_id="abc", resume=resume)


def test_a_new_directory_is_named_by_time_and_id_and_linked(tmp_path):
    directory = opened()
    assert directory.path.parent == tmp_path / "runs"
    assert directory.path.name.endswith("-abc")
    assert (tmp_path / "runs" / "latest").resolve() == directory.path
    assert directory.logs.is_dir()
    directory.close()


def test_a_named_directory_is_not_linked(tmp_path):
    opened(tmp_path / "mine").close()
    assert not (tmp_path / "runs").exists()


def test_one_job_at_a_time(tmp_path):
    first = opened(tmp_path / "mine")
    with pytest.raises(ConfigError, match=rf"a job already runs in .*mine \(agent process {os.getpid()}\)"):
        opened(tmp_path / "mine")
    first.close()
    opened(tmp_path / "mine").close()


def test_what_an_earlier_job_left_is_moved_aside(tmp_path):
    first = opened(tmp_path / "mine")
    first.events.write_text("old")
    (first.logs / "worker-0.log").write_text("old")
    first.close()
    second = opened(tmp_path / "mine")
    assert not second.events.exists()
    assert list(second.logs.iterdir()) == []
    assert (second.path / "earlier" / "1" / "events.jsonl").read_text() == "old"
    assert (second.path / "earlier" / "1" / "logs" / "worker-0.log").read_text() == "old"
    second.events.write_text("newer")
    second.close()
    opened(tmp_path / "mine").close()
    assert (tmp_path / "mine" / "earlier" / "2" / "events.jsonl").read_text() == "newer"


def test_checkpoints_are_never_walked_over(tmp_path):
    (tmp_path / "mine" / "checkpoints" / "step-00000001").mkdir(parents=True)
    with pytest.raises(ConfigError, match="pass --resume to continue it"):
        opened(tmp_path / "mine")
    resumed = opened(tmp_path / "mine", resume=True)
    assert (resumed.checkpoints / "step-00000001").is_dir()
    resumed.close()


def test_there_must_be_something_to_resume(tmp_path):
    with pytest.raises(ConfigError, match="does not exist, so there is nothing to resume"):
        opened(resume=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no checkpoint"):
        opened(tmp_path / "empty", resume=True)


def test_a_resumed_job_counts_generations_on(tmp_path):
    first = opened(tmp_path / "mine")
    Journal(first.journal, begin(Settings(workers=1, first_generation=7), 0.0), 0.0).close()
    first.close()
    second = opened(tmp_path / "mine")
    assert second.earlier_generation() == 7
    second.close()


def test_a_file_in_the_way_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"the run directory .*file cannot be used"):
        opened(tmp_path / "file")


def test_the_agents_file_is_there_while_it_runs(tmp_path):
    directory = opened(tmp_path / "mine")
    directory.announce({"pid": 1})
    assert json.loads(directory.agent_file.read_text()) == {"pid": 1}
    directory.close()
    directory.close()
    assert not directory.agent_file.exists()


def test_sockets_live_in_a_short_private_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("long" * MAX_SOCKET_BASE)))
    sockets = SocketDirectory()
    assert str(sockets.path).startswith("/tmp/hpresil-")
    assert stat.S_IMODE(sockets.path.stat().st_mode) == 0o700
    assert len(str(sockets.coordinator)) < 108
    sockets.agent.write_text("")
    sockets.close()
    assert not sockets.path.exists()


def test_a_node_of_another_job_cannot_write_where_one_of_this_job_does(tmp_path):
    first = opened(tmp_path / "shared" / "nodes" / "n1")
    with pytest.raises(ConfigError, match=r"a job already runs in .*/nodes/n1 .* choose another --run-dir"):
        opened(tmp_path / "shared" / "nodes" / "n1")
    other = opened(tmp_path / "shared" / "nodes" / "n2")
    other.close()
    first.close()
