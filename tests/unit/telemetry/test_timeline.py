import json
from itertools import pairwise

import pytest

import told_job
from hpresil.telemetry import story, timeline


@pytest.fixture
def entries(tmp_path):
    path = tmp_path / "trace.json"
    told = story.read(told_job.write(tmp_path / "run"))
    count = timeline.write(told, path)
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
    document = json.loads(path.read_text())
    assert len(document["traceEvents"]) == count
    assert document["otherData"]["run_id"] == "r1"
    return document["traceEvents"]


def named(entries, name):
    return [entry for entry in entries if entry["name"] == name]


def test_every_entry_has_what_the_format_asks_for(entries):
    for entry in entries:
        assert {"ph", "pid", "name"} <= set(entry)
        assert entry["ph"] in "XMiCbe"
        if entry["ph"] != "M":
            assert entry["ts"] >= 0
        if entry["ph"] == "X":
            assert entry["dur"] >= 0
            assert isinstance(entry["tid"], int)


def test_every_process_and_thread_has_a_name(entries):
    rows = {entry["pid"]: entry["args"]["name"] for entry in named(entries, "process_name")}
    assert rows[timeline.JOB] == "job"
    assert rows[timeline.FIRST_AGENT] == "agent-n1 (n1, process 99)"
    assert rows[timeline.FIRST_WORKER + 1] == "worker 1 (n1, process 101)"
    threads = {
        entry["args"]["name"]
        for entry in named(entries, "thread_name")
        if entry["pid"] == timeline.FIRST_WORKER
    }
    assert threads == {"training", "regroup", "serve"}
    drawn = {(entry["pid"], entry["tid"]) for entry in entries if entry["ph"] == "X"}
    assert drawn <= {(entry["pid"], entry["tid"]) for entry in named(entries, "thread_name")}


def test_a_span_says_rank_generation_step_and_slot(entries):
    slot = next(e for e in named(entries, "slot") if e["pid"] == timeline.FIRST_WORKER)
    assert slot["args"] == {"rank": 0, "generation": 1, "step": 10, "slot": 0}
    assert (slot["ts"], slot["dur"]) == (3.8e6, 80e3)
    restore = next(e for e in named(entries, "restore") if e["pid"] >= timeline.FIRST_WORKER)
    assert restore["args"]["bytes"] == 4000


def test_what_a_worker_died_in_is_marked(entries):
    cut = [entry["name"] for entry in entries if "cut" in entry.get("args", {})]
    assert cut == ["step", "slot"]


def test_faults_are_visible_across_all_rows(entries):
    lines = [(e["name"], e["ts"]) for e in entries if e["ph"] == "i" and e["s"] == "g"]
    assert ("fault: killed worker 1", 3.95e6) in lines
    assert ("WorkerLost 1: killed by SIGKILL", 4.01e6) in lines


def test_a_recovery_holds_its_phases_one_after_the_other(entries):
    blocks = [e for e in entries if (e["ph"], e["pid"], e.get("tid")) == ("X", 1, timeline.RECOVERIES)]
    killed = next(e for e in blocks if e["name"] == "killed worker 1")
    inside = [
        e
        for e in blocks
        if e is not killed and killed["ts"] <= e["ts"] and e["ts"] + e["dur"] <= killed["ts"] + killed["dur"]
    ]
    assert [e["name"] for e in inside] == ["detect", "regroup", "restore", "first step"]
    for a, b in pairwise(inside):
        assert a["ts"] + a["dur"] == pytest.approx(b["ts"], abs=0.01)


def test_every_event_is_an_instant_and_those_of_a_worker_lie_in_its_row(entries):
    instants = [e for e in entries if e["ph"] == "i" and not e["name"].startswith("fault")]
    assert len(instants) == len(told_job.events())
    assert {e["pid"] for e in instants if e["name"] == "Restored"} == {timeline.FIRST_WORKER + 2}


def test_waits_that_overlap_are_pairs_of_their_own(entries):
    begin, end = named(entries, "start worker")
    assert (begin["ph"], end["ph"], begin["id"]) == ("b", "e", end["id"])
    assert begin["args"]["worker"] == 3


def test_loss_and_group_size_are_counters(entries):
    assert [e["args"]["group size"] for e in named(entries, "group size")] == [2, 2, 3]
    assert len(named(entries, "loss")) == 18


def test_a_job_without_spans_gives_its_events(tmp_path):
    run = told_job.write(tmp_path / "run")
    for path in (run / "trace").iterdir():
        path.unlink()
    assert timeline.write(story.read(run), tmp_path / "t.json") > len(told_job.events())
