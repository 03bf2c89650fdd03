"""One real job with a killed worker, and what people are shown of it: trace, report, metrics."""

from __future__ import annotations

import json
import math
import socket
import threading
import time
import urllib.request

import pytest

import job
from hpresil.base.spans import NAMES
from hpresil.cli.main import main
from hpresil.telemetry import story

STEPS, KILLED_AT = 24, 9
FAULT = {"id": "a", "point": "slot.begin", "action": "kill", "rank": 1, "step": KILLED_AT, "slot": 4}


class Scraper(threading.Thread):
    """Scrapes until it is told to stop, and keeps the last answer."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.port, self.last, self.stopped = port, "", threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.1):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
                    self.last = answer.read().decode()
            except OSError:
                continue


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    directory = tmp_path_factory.mktemp("told") / "run"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    scraper = Scraper(port)
    scraper.start()
    found = job.run(
        directory,
        "train_transformer.py",
        "--steps",
        STEPS,
        "--width",
        192,
        nproc=2,
        spares=1,
        faults=[FAULT],
        flags=("--metrics-port", str(port)),
    )
    scraper.stopped.set()
    scraper.join(10)
    assert found.status == 0, found.output
    assert "a" in found.fired, "the fault did not fire"
    return found, scraper.last


@pytest.fixture(scope="module")
def reason(ran):
    """Why the worker counts as lost: by its exit status, or earlier by its mutex."""
    (found,) = [event["reason"] for event in ran[0].happened("WorkerLost")]
    assert found in ("killed", "ended")
    return found


@pytest.fixture(scope="module")
def told(ran):
    return story.read(ran[0].directory)


def process(told, worker):
    (found,) = [one for one in told.processes if one.worker == worker]
    return found


def test_every_process_left_a_trace_with_nothing_missing(ran, told):
    started = {event["worker"] for event in ran[0].happened("WorkerStarted")}
    assert {one.worker for one in told.processes} == {-1, *started}
    assert [one.lost for one in told.processes] == [0] * len(told.processes)
    assert {a.name for one in told.processes for a in one.activities} <= set(NAMES)


def test_the_killed_worker_died_in_the_slot_in_which_it_was_killed(ran, told):
    victim = process(told, ran[0].fired["a"]["where"]["worker"])
    cut = [(a.name, a.step, a.slot) for a in victim.activities if a.cut]
    assert ("slot", KILLED_AT, 4) in cut
    (slot,) = [a for a in victim.activities if a.cut and a.name == "slot"]
    assert slot.begin <= ran[0].fired["a"]["t"] <= slot.end


def test_a_survivors_steps_are_told_from_slot_to_commit(told):
    mine = [a for a in process(told, 0).activities if a.step == 3]
    names = [a.name for a in mine if a.name not in ("data", "fold", "collect")]
    assert names == ["step", "slot", "slot", "slot", "reduce", "vote", "apply", "wait", "commit"]
    assert {a.name for a in process(told, 0).activities} >= {"import", "build", "track", "join"}


def test_the_recovery_can_be_followed_through_all_processes(told):
    (change,) = [found for found in told.recoveries if found.workers]
    end = change.at + change.total_ms / 1e3

    def during(worker):
        return {a.name for a in process(told, worker).activities if change.at <= a.begin <= end}

    assert {"notice", "decide"} <= during(-1)
    assert {"view", "regroup", "serve", "seal", "slot", "reduce", "vote"} <= during(0)
    newcomer = told.all("Restored")[-1]["worker"]
    copied = {"copy parameters", "copy buffers", "copy optimizer", "copy rest"}
    assert {"restore", "regroup", "slot", "reduce", "vote"} | copied <= during(newcomer)
    assert "standby step" in {a.name for a in process(told, newcomer).activities}
    restore = next(a for a in process(told, newcomer).activities if a.name == "restore")
    assert restore.value == told.all("Restored")[-1]["bytes"]


def test_goodput_adds_up_and_the_fault_costs_something(told):
    totals = told.goodput()
    assert math.isclose(sum(totals.values()), told.end - told.begin, abs_tol=1e-6)
    assert all(totals[name] > 0 for name in ("productive", "data", "detection", "recovery", "start-up"))


def test_report_and_trace_are_made_from_the_command_line(ran, reason, capsys):
    directory = ran[0].directory
    assert main(["report", str(directory)]) == 0
    assert main(["trace", str(directory)]) == 0
    capsys.readouterr()
    page = (directory / "report.html").read_text()
    assert f"{STEPS} steps, 1 fault, no step made again" in page
    assert page.count("<svg") == 5
    entries = json.loads((directory / "trace.json").read_text())["traceEvents"]
    names = {entry["name"] for entry in entries}
    assert {"slot", "reduce", "restore", "notice", f"fault: {reason} worker 1"} <= names


def test_metrics_followed_the_job(ran, reason):
    lines = dict(line.rsplit(" ", 1) for line in ran[1].splitlines() if line and line[0] != "#")
    assert float(lines[f'hpresil_faults_total{{kind="{reason}"}}']) == 1
    assert float(lines["hpresil_generation"]) == 2
    assert float(lines["hpresil_step"]) == STEPS - 1
    assert float(lines['hpresil_goodput_seconds{category="data"}']) > 0
    assert float(lines['hpresil_moved_bytes_total{direction="restored"}']) > 0


def test_the_next_job_in_the_directory_puts_the_traces_away(ran):
    directory = ran[0].directory
    begin = time.time()
    again = job.run(directory, "train_transformer.py", "--steps", 2, nproc=1)
    assert again.status == 0, again.output
    kept = sorted(path.name for path in (directory / "earlier" / "1" / "trace").iterdir())
    assert [name for name in kept if name.startswith("worker-1.")]
    fresh = list((directory / "trace").iterdir())
    assert {path.name.split("-")[0] for path in fresh} == {"agent", "worker"}
    assert all(path.stat().st_mtime >= begin - 1 for path in fresh)
