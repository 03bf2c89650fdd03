"""Contenders are told the same job, the same limit where they are tuned, and meet the same fault."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from bench.contenders import SCRIPTS, Fault, Job, contenders_of, environment, hpresil
from bench.recovery import suite as recovery
from bench.steady import suite as steady

PORTS = list(range(20000, 20016))
KILLED = Job("small", 2, 36, Fault("kill", 1, 25))
HUNG = replace(KILLED, fault=Fault("hang", 1, 25))
NODE = recovery.jobs()["node-50m-2x2"]
EVERY = {contender.name: contender for suite in ("recovery", "steady") for contender in contenders_of(suite)}
PROTECTED = [name for name in EVERY if not name.startswith("no protection")]
LIMIT = str(hpresil.HANG_S)
STARTER = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
WORKER = """
import os, sys
from workload import Workload
work = Workload()
mine, other = sys.argv[1:]
(work.out / f"beside-{os.getppid()}.1").write_text(mine)
(work.out / f"beside-{os.getppid()}0.1").write_text(other)
work.meet_fault(25, 1)
"""


def processes(name, job, tmp_path):
    return EVERY[name].processes(job, tmp_path, Path("/there/bin/python"), PORTS)


def told(name, job, tmp_path):
    """Return everything that the processes of a contender are told."""
    found = []
    for process in processes(name, job, tmp_path):
        found += [*map(str, process.command), *process.environment.values()]
    return found


@pytest.fixture
def workload(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    wanted = {"OUT": str(tmp_path), "SIZE": "small", "STEPS": "36", "FAULT": "kill:1:25", "RESIDENT": "0.001"}
    for name, value in wanted.items():
        monkeypatch.setenv(f"BENCH_{name}", value)
    spec = importlib.util.spec_from_file_location("workload_of_bench", SCRIPTS / "workload.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.Workload()
    yield made
    made.marks._file.close()


def test_a_tuned_contender_is_a_variant_of_one_with_its_own_defaults() -> None:
    for name, contender in EVERY.items():
        assert contender.tuned == name.endswith(", tuned")
        if contender.tuned:
            assert not EVERY[name.removesuffix(", tuned")].tuned


@pytest.mark.parametrize("name", [name for name, contender in EVERY.items() if not contender.why_not(HUNG)])
def test_who_is_tuned_calls_a_worker_hung_when_hpresil_does(name, tmp_path) -> None:
    limited = LIMIT in told(name, HUNG, tmp_path)
    assert limited == (EVERY[name].tuned or name.startswith("hpresil"))


def test_who_cannot_end_a_hang_says_so_instead_of_waiting() -> None:
    refused = {name for name in PROTECTED if EVERY[name].why_not(HUNG)}
    assert refused == {"torchrun + DCP", "NVRx ft_launcher + DCP", "torchft", "torchft, tuned"}
    assert not any(EVERY[name].why_not(KILLED) for name in PROTECTED)


@pytest.mark.parametrize("suite", [recovery, steady])
def test_the_spare_is_there_in_both_suites(suite, tmp_path) -> None:
    for job in (suite.jobs(quick=False) if suite is steady else suite.jobs()).values():
        assert job.spares == (1 if job.nodes == 1 else 0)
        command = list(map(str, processes("hpresil", job, tmp_path)[0].command))
        assert command[command.index("--spares") + 1] == str(job.spares)
        if job.nodes == 1:
            ranks = processes("NVRx in-process, hot spare", job, tmp_path)
            assert len(ranks) == job.workers + 1
            assert {rank.environment["WORLD_SIZE"] for rank in ranks} == {str(job.workers + 1)}


def test_every_contender_of_a_recovery_runs_on_two_nodes(tmp_path) -> None:
    for contender in contenders_of("recovery"):
        if contender.name not in PROTECTED:
            continue
        assert contender.why_not(NODE) == ""
        workers = [each for each in processes(contender.name, NODE, tmp_path) if not each.helper]
        assert len(workers) == (1 if contender.name == "hpresil" else 2)


def test_torchft_trains_on_for_as_long_as_a_restart_takes_at_every_size() -> None:
    torchft = EVERY["torchft"]
    longer = [torchft.longer(replace(KILLED, size=size)) for size in ("small", "5m", "50m")]
    assert longer == sorted(longer, reverse=True)
    assert EVERY["hpresil"].longer(KILLED) == torchft.longer(NODE) == 0


def test_who_is_started_in_the_place_of_the_dead_fills_no_memory(workload, tmp_path) -> None:
    workload.ballast(0)
    assert workload._ballast is None
    workload.ballast(1)
    assert len(workload._ballast) == (1 << 30) // 1000
    workload._ballast = None
    (tmp_path / "fault").touch()
    workload.ballast(1)
    assert workload._ballast is None


@pytest.mark.parametrize("worst", [0, 3])
def test_a_node_starts_its_ranks_and_ends_like_the_worst_of_them(tmp_path, worst) -> None:
    script = tmp_path / "rank.py"
    script.write_text(
        "import os, pathlib, sys; rank = os.environ['RANK']; pathlib.Path(rank).touch();"
        f"sys.exit({worst} * (rank == '2'))"
    )
    command = [sys.executable, SCRIPTS / "start_node.py", "2", script]
    ran = subprocess.run(command, cwd=tmp_path, env=os.environ | {"RANK": "2"}, check=False, timeout=60)
    assert ran.returncode == worst
    assert sorted(path.name for path in tmp_path.glob("[0-9]")) == ["2", "3"]


def test_a_lost_node_takes_along_who_started_its_workers_and_who_watches_them(tmp_path) -> None:
    wanted = {"OUT": str(tmp_path), "SIZE": "small", "STEPS": "36", "FAULT": "node:1:25"}
    env = {name: value for name, value in os.environ.items() if name != "HPRESIL_AGENT_PID"}
    env |= {f"BENCH_{name}": value for name, value in wanted.items()} | {"PYTHONPATH": str(SCRIPTS)}
    beside, of_another_node = (subprocess.Popen(["sleep", "60"]) for _ in range(2))
    arguments = [STARTER, "-c", WORKER, str(beside.pid), str(of_another_node.pid)]
    starter = subprocess.Popen([sys.executable, "-c", *arguments], env=env)
    try:
        assert starter.wait(60) == -signal.SIGKILL
        assert beside.wait(10) == -signal.SIGKILL
        assert of_another_node.poll() is None
        first, *_, last = json.loads((tmp_path / "fault").read_text())["pids"]
        assert first == starter.pid
        assert last not in (starter.pid, beside.pid)
    finally:
        for process in (starter, beside, of_another_node):
            process.kill()
            process.wait()


@pytest.mark.parametrize("path", sorted(environment.HERE.glob("*.txt")), ids=lambda path: path.stem)
def test_an_environment_is_named_after_all_that_is_in_it(path) -> None:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("# ")]
    assert all(re.match(r"(#unpack )?[A-Za-z0-9_.-]+==[0-9][^ ]*", line) for line in lines)
    names = {line.split("==")[0].lower() for line in lines}
    assert {"torch", "numpy", "sympy", "typing_extensions"} <= names
