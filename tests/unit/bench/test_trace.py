"""A timeline shows each run with all of its processes on one clock, and is only written if it is wanted."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from itertools import pairwise

import pytest
from bench import __main__ as command, rows, trace
from bench.contenders import Contender, Fault, Job, Process, launched
from bench.micro import suite as micro

import told_job

KILLED = Job("small", 2, 12, Fault("kill", 1, 2))
FAULT = trace.Fault(10.25, (21,))


def mark(t, pid, what="step", **more):
    return {"t": t, "pid": pid, "what": what, **more}


def step(t, pid, number, rank):
    return mark(t, pid, step=number, rank=rank, world=2, parts={str(rank): "aa"})


def marks():
    """Two steps, then process 21 dies in the third, which process 22 does with process 20."""
    before = [step(10.0 + number / 10, pid, number, pid - 20) for number in (0, 1) for pid in (20, 21)]
    noticed = [mark(10.3, 20, "noticed"), mark(10.4, 20, "group", rank=0), mark(10.4, 22, "group", rank=1)]
    restored = [mark(10.5, 20, "restored", step=2), mark(10.6, 22, "restored", step=2)]
    return [*before, *noticed, *restored, step(10.7, 20, 2, 0), step(10.8, 22, 2, 1)]


@pytest.fixture
def entries():
    return list(trace.run_entries("a peer", KILLED, marks(), FAULT, 10.0))


@pytest.fixture
def destination(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "destination", trace.Timelines(tmp_path / "timelines", "recovery-case"))
    return tmp_path / "timelines"


def rows_of(entries):
    return {e["args"]["name"]: e["pid"] for e in entries if e["name"] == "process_name"}


def slices(entries, row):
    mine = [e for e in entries if e["ph"] == "X" and e["pid"] == row]
    return [(e["name"], round(e["ts"] / 1e3), round(e["dur"] / 1e3)) for e in mine]


def instants(entries, scope):
    return [(e["name"], round(e["ts"] / 1e3)) for e in entries if e["ph"] == "i" and e["s"] == scope]


def document(path):
    return json.loads(path.read_text())["traceEvents"]


def test_a_process_has_its_steps_and_what_lies_between_its_marks(entries) -> None:
    rows_ = rows_of(entries)
    assert slices(entries, rows_["rank 0 (marks of process 20)"]) == [
        ("step 1", 0, 100),
        ("until it noticed", 100, 200),
        ("regroup", 300, 100),
        ("restore", 400, 100),
        ("step 2", 500, 200),
    ]
    assert slices(entries, rows_["rank 1 (marks of process 22)"]) == [
        ("restore", 400, 200),
        ("step 2", 600, 200),
    ]


def test_who_died_was_cut_off_at_the_fault(entries) -> None:
    row = rows_of(entries)["rank 1 (marks of process 21)"]
    assert slices(entries, row) == [("step 1", 0, 100), ("cut off", 100, 150)]


def test_the_fault_and_the_first_full_step_go_across_all_rows(entries) -> None:
    assert instants(entries, "g") == [("fault", 250), ("first full-group step", 800)]
    (fault,) = (e for e in entries if e["name"] == "fault" and e["s"] == "g")
    assert fault["args"] == {"processes": [21]}


def test_other_marks_are_instants_and_so_is_a_step_whose_beginning_left_none(entries) -> None:
    said = instants(entries, "t")
    assert {("noticed", 300), ("group", 400), ("restored", 500), ("restored", 600)} <= set(said)
    assert said.count(("step 0 done", 0)) == 2


def test_a_group_that_is_never_whole_again_has_no_full_step() -> None:
    found = list(trace.run_entries("a peer", KILLED, marks()[:-1], FAULT, 10.0))
    assert instants(found, "g") == [("fault", 250)]


def test_a_run_without_a_fault_has_none() -> None:
    found = list(trace.run_entries("a peer", Job("small", 2, 12), marks()[:4], None, 10.0))
    assert instants(found, "g") == []
    assert len(rows_of(found)) == 3


def hpresil_run(directory):
    """Leave what a run of hpresil leaves: its run directory, marks and the fault."""
    told_job.write(directory / "run")
    (directory / "fault").write_text(json.dumps({"pids": [101], "t": told_job.KILLED_AT}))
    return [step(2.9, 100, 8, 0), step(2.95, 101, 8, 1), step(4.8, 100, 9, 0), step(4.8, 101, 9, 1),
            step(5.3, 100, 10, 0), step(5.4, 102, 10, 1)]  # fmt: skip


def test_a_run_of_hpresil_has_its_own_trace_on_the_same_clock(tmp_path, destination) -> None:
    trace.of_run("hpresil", KILLED, tmp_path, hpresil_run(tmp_path))
    found = document(destination / "recovery-case-001-hpresil.json")
    assert {"job", "bench: hpresil", "worker 1 (n1, process 101)", "rank 1 (marks of process 101)"} <= set(
        rows_of(found)
    )
    at = {name: ts for name, ts in instants(found, "g") if "fault" in name or "first" in name}
    # The job's first event is at 1.0 s, its worker 1 is killed at 5.0 s.
    assert at == {"fault": 4000, "fault: killed worker 1": 4000, "first full-group step": 4400}
    assert ("regroup", 4030, 20) in slices(found, rows_of(found)["worker 0 (n1, process 100)"])


def test_nothing_is_written_unless_it_is_wanted(tmp_path) -> None:
    assert trace.destination is None
    before = sorted(tmp_path.rglob("*"))
    trace.of_run("a peer", KILLED, tmp_path, marks())
    rows.take_turns({"a": lambda: None}, repeats=1)
    assert sorted(tmp_path.rglob("*")) == before


TRAINING = """
import json, time
with open("marks.7.jsonl", "w") as file:
    for step in 0, 1:
        mark = {"t": time.monotonic(), "pid": 7, "what": "step", "step": step, "rank": 0, "parts": {}}
        print(json.dumps(mark), file=file)
"""


@dataclass(frozen=True)
class TwoMarks(Contender):
    def processes(self, job, directory, python, ports):
        return [Process("it", [python, "-c", TRAINING])]


def test_every_run_that_is_launched_leaves_one(tmp_path, destination) -> None:
    job = Job("small", 1, 2)
    for name in ("a", "b"):
        assert len(launched.run(TwoMarks("two, marks"), job, tmp_path / name)) == 2
    names = sorted(path.name for path in destination.iterdir())
    assert names == [f"recovery-case-00{n}-two-marks-without-a-fault.json" for n in (1, 2)]
    ((name, _, _),) = slices(document(destination / names[0]), trace.FIRST_ROW)
    assert name == "step 1"


def test_turns_have_a_slice_for_each_call_and_count_those_after_the_warm_up(destination) -> None:
    seconds = rows.take_turns({"ours": list, "theirs": dict}, repeats=2, warm_up=1)
    assert {name: len(those) for name, those in seconds.items()} == {"ours": 2, "theirs": 2}
    found = [e for e in document(destination / "recovery-case-001-turns.json") if e["ph"] == "X"]
    counted = [e["dur"] for e in found if e["name"] == "ours" and e["args"]["counts"]]
    assert counted == pytest.approx([1e6 * second for second in seconds["ours"]], abs=0.001)
    in_turn = sorted(found, key=lambda e: e["ts"])
    assert [e["name"] for e in in_turn] == ["ours", "theirs"] * 3
    assert all(a["ts"] + a["dur"] <= b["ts"] for a, b in pairwise(in_turn))


def test_calls_and_marks_are_of_one_clock() -> None:
    clocks = {time.get_clock_info(name).implementation for name in ("perf_counter", "monotonic")}
    assert clocks == {"clock_gettime(CLOCK_MONOTONIC)"}


def test_the_command_says_where_timelines_go_and_what_they_are_of(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(trace, "destination", None)
    monkeypatch.setattr(micro, "names", lambda quick: ["copy", "hash"])
    monkeypatch.setattr(micro, "rows", lambda name, quick: rows.take_turns({"a": int}, repeats=1) and [])
    monkeypatch.setattr(sys, "argv", ["bench", "micro", "--trace", str(tmp_path / "there")])
    assert command.main() == 0
    names = sorted(path.name for path in (tmp_path / "there").iterdir())
    assert names == ["micro-copy-001-turns.json", "micro-hash-002-turns.json"]
