"""A forked worker is what a new interpreter would be; without the server, new interpreters do the work."""

import json
import os
import signal
from pathlib import Path

import pytest

from launched import Launched

FACTS = """
import json, os, signal, sys, threading
import numpy, torch
def link(fd):
    try: return os.readlink(f"/proc/self/fd/{fd}").split(":")[0].split("-")[0]
    except OSError: return None
facts = {
    "argv": sys.argv,
    "path": sys.path[0],
    "name": [__name__, __file__],
    "main": sys.modules["__main__"].__dict__ is globals(),
    "flags": [sys.flags.utf8_mode, sys.flags.hash_randomization, sys.flags.safe_path],
    "hash": hash("text"),
    "session": [os.getsid(0) == os.getpid(), os.getpgid(0) == os.getpid()],
    "parent": os.getppid() == int(os.environ["HPRESIL_AGENT_PID"]),
    "environment": {k: v for k, v in os.environ.items() if k not in OWN},
    "streams": [link(0), link(1) == link(2)],
    "descriptors": sorted(filter(None, (link(fd) for fd in range(3, 200)))),
    "page": link(os.environ["HPRESIL_PAGE_FD"]),
    "arenas": [link(fd) for fd in os.environ["HPRESIL_ARENA_FDS"].split(",")],
    "signals": [str(signal.getsignal(n)) for n in range(1, 32)],
    "umask": os.umask(0o22),
    "cwd": os.getcwd(),
    "threads": threading.active_count(),
    "torch": [torch.get_num_threads(), torch.is_grad_enabled(), str(torch.get_default_dtype())],
    "cuda": torch.cuda._is_in_bad_fork(),
}
drawn = [torch.initial_seed(), float(numpy.random.rand()), os.urandom(4).hex(), __import__("random").random()]
step = torch.nn.Linear(4, 4)
torch.optim.AdamW(step.parameters()).step()
print(json.dumps([facts, drawn]))
""".replace("OWN", repr((
    "HPRESIL_SOCKET", "HPRESIL_AGENT_PID", "HPRESIL_RUN_DIR", "HPRESIL_LOG_DIR", "HPRESIL_PAGE_FD",
    "HPRESIL_ARENA_FDS", "HPRESIL_TRACE_FD", "TORCHELASTIC_RUN_ID",
)))  # fmt: skip


TWO = ("--nproc-per-node", "2")


def methods(launched: Launched) -> list[str]:
    return [event["start_method"] for event in launched.events("WorkerStarted")]


def facts(directory: Path, method: str, inside: tuple[str, ...] = ()) -> list[list[object]]:
    directory.mkdir()
    (directory / "facts.py").write_text(FACTS)
    flags = (*TWO, "--tee", "3")
    with Launched(directory, "facts.py", "--x", "1", flags=flags, start_method=method, inside=inside) as job:
        assert job.ended() == 0, job.story()
        assert methods(job) == [method] * 2
        lines = sorted(line for line in job.stdout.splitlines() if line.startswith("[w"))
    return [json.loads(line.split("] ", 1)[1].replace(str(directory), "HERE")) for line in lines]


def test_a_forked_worker_is_what_a_new_interpreter_would_be(tmp_path):
    """Also under nohup: the agent handles what that ignores, so a new interpreter knows nothing of it."""
    forked = facts(tmp_path / "a", "forkserver", inside=("nohup",))
    spawned = facts(tmp_path / "b", "spawn")
    for (ours, _), (theirs, _) in zip(forked, spawned, strict=True):
        assert ours == theirs
    numbers = [drawn for _, drawn in forked + spawned]
    for column in zip(*numbers, strict=True):
        assert len(set(column)) == len(numbers), "two workers draw the same numbers"


def server_of(job: Launched) -> int:
    """Return the process id of the fork server; its workers show the same variables in this place."""
    agent, workers = job.facts()["pid"], {event["pid"] for event in job.events("WorkerStarted")}
    for child in map(int, Path(f"/proc/{agent}/task/{agent}/children").read_text().split()):
        if child not in workers and b"HPRESIL_FORK_SERVER=" in Path(f"/proc/{child}/environ").read_bytes():
            return child
    raise AssertionError("there is no fork server")


def test_workers_outlive_the_fork_server_and_the_next_ones_come_all_the_same(tmp_path):
    long = ("--steps", "100000", "--step-s", "0.02")
    with Launched(tmp_path, "puppet.py", *long, flags=TWO, start_method="forkserver") as job:
        job.until_step(3)
        os.kill(server_of(job), signal.SIGKILL)
        job.until_step(20)
        for count in (3, 4):
            os.kill(job.pid(count - 2), signal.SIGKILL)
            job.until(lambda count=count: len(methods(job)) == count)
            job.until(lambda count=count: len(job.events("WorkerLost")) == count - 2)
        job.signal(signal.SIGTERM)
        assert job.ended() == 0, job.story()
        assert methods(job) == ["forkserver", "forkserver", "spawn", "forkserver"]


STARTS_A_THREAD = "import threading as t; t.Thread(target=t.Event().wait, args=(60,), daemon=True).start()"
ENDS_THE_SERVER = "import os; 'HPRESIL_FORK_SERVER' in os.environ and os._exit(1)"


@pytest.mark.parametrize(
    ("line", "why"),
    [(STARTS_A_THREAD, "started 1 threads"), (ENDS_THE_SERVER, "it ended while it was starting")],
)
def test_a_process_that_must_not_be_forked_is_not(tmp_path, line, why):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(line)
    (tmp_path / "plain.py").write_text("print('ran')")
    path = os.pathsep.join([str(tmp_path / "site"), *filter(None, [os.environ.get("PYTHONPATH")])])
    with Launched(tmp_path, "plain.py", start_method="forkserver", PYTHONPATH=path) as job:
        assert job.ended() == 0, job.story()
        assert methods(job) == ["spawn"]
        assert "ran" in job.stdout
        assert why in (job.run_dir / "agent.log").read_text()
