"""A picture of one recovery has a lane for each process, and begins shortly before the fault."""

from __future__ import annotations

import json

import pytest
from bench import lanes, plot_lanes, timeline, trace
from bench.contenders import Fault, Job

import told_job

KILLED = Job("small", 2, 12, Fault("kill", 1, 10))
T = told_job.KILLED_AT


def step(t, pid, number, rank):
    return {"t": t, "pid": pid, "what": "step", "step": number, "rank": rank, "world": 2, "parts": {}}


def said(t, pid, what):
    return {"t": t, "pid": pid, "what": what}


def steps():
    """Process 101 dies at 5.0 s in step 10, which process 102 does with process 100 until 5.4 s."""
    before = [step(t, pid, number, pid - 100) for t, number in ((4.0, 8), (4.8, 9)) for pid in (100, 101)]
    return [*before, step(5.3, 100, 10, 0), step(5.4, 102, 10, 1)]


@pytest.fixture
def path_of(tmp_path, monkeypatch):
    """Write a timeline of these marks, with hpresil's own trace if ``own``; return its path."""
    monkeypatch.setattr(trace, "destination", trace.Timelines(tmp_path, "recovery"))

    def write(marks, *, own=False, fault=True, job=KILLED):
        run = tmp_path / "run"
        run.mkdir()
        if own:
            told_job.write(run / "run")
        if fault:
            (run / "fault").write_text(json.dumps({"pids": [101], "t": T}))
        trace.of_run("it", job, run, sorted(marks, key=lambda mark: mark["t"]))
        (path,) = tmp_path.glob("recovery-001-*.json")
        return path

    return write


def drawn(path):
    return lanes.lanes(json.loads(path.read_text())["traceEvents"])


def bars(lane, line):
    return [(bar.name, round(bar.begin, 3), round(bar.end, 3)) for bar in lane.lines[line]]


def test_a_peers_processes_have_what_lies_between_their_marks(path_of) -> None:
    marks = [*steps(), said(5.1, 100, "noticed"), said(5.2, 102, "restored")]
    survivor, victim, newcomer = drawn(path_of(marks))
    assert [lane.name for lane in (survivor, victim, newcomer)] == ["rank 0", "rank 1", "rank 1"]
    assert bars(survivor, "") == [("until it noticed", -0.2, 0.1), ("step 10", 0.1, 0.3)]
    assert bars(victim, "") == [("cut off", -0.2, 0.0)]
    assert (victim.hit, survivor.hit, newcomer.hit) == (True, False, False)
    assert bars(newcomer, "") == [("step 10", 0.2, 0.4)]


def test_hpresils_own_trace_takes_their_place(path_of) -> None:
    found = {lane.name.split("\n")[0]: lane for lane in drawn(path_of(steps(), own=True))}
    assert list(found) == ["job", "agent-n1", "worker 0", "worker 1", "worker 2", "worker 3"]
    assert found["worker 2"].name == "worker 2\nrank 1"
    assert [bar.name for bar in found["job"].lines[""]] == ["detect", "regroup", "restore", "first step"]
    assert bars(found["agent-n1"], "agent") == [("notice", 0.009, 0.012), ("start worker", 0.08, 0.1)]
    survivor = found["worker 0"]
    assert list(survivor.lines) == ["training", "regroup", "serve"]
    assert [(bar.name, bar.depth) for bar in survivor.lines["serve"]] == [("serve", 0), ("seal", 1)]


def test_what_a_process_died_in_ends_at_the_fault(path_of) -> None:
    found = {lane.name.split("\n")[0]: lane for lane in drawn(path_of(steps(), own=True))}
    victim = found["worker 1"]
    assert victim.hit
    assert list(victim.lines) == ["step", "training"], "the steps come first"
    assert bars(victim, "step") == [("step 10", -0.2, 0.0)]
    assert ("slot", -0.1, 0.0) in bars(victim, "training")


def test_only_what_lies_in_the_recovery_is_drawn(path_of) -> None:
    path = path_of(steps(), own=True)
    _, length, hit = lanes.recovery(json.loads(path.read_text())["traceEvents"])
    assert (round(length, 3), hit) == (0.4, [101])
    ends = [(bar.end, bar.begin) for lane in drawn(path) for those in lane.lines.values() for bar in those]
    assert all(end > -0.1 and begin < 0.412 for end, begin in ends)


def test_the_picture_names_processes_bars_and_both_moments(path_of) -> None:
    (axes,) = plot_lanes.draw(drawn(path_of(steps(), own=True)), 0.4, "title", "caption").axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[:3] == ["job", "agent-n1", "worker 0\nrank 0"]
    texts = [text.get_text().strip() for text in axes.texts]
    assert {"fault", "first full-group step: 400 ms", "first step", "step 10", "training"} <= set(texts)
    assert [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "X"] == [0]
    assert axes.get_xlim() == (-0.1, pytest.approx(0.412))


def test_every_kind_of_bar_has_a_colour_and_a_meaning() -> None:
    assert set(lanes.KIND.values()) <= set(plot_lanes.COLOURS)
    assert set(plot_lanes.COLOURS) <= set(plot_lanes.MEANING)
    assert set(trace.BETWEEN.values()) <= set(lanes.KIND)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_command_writes_the_same_picture_twice(path_of, tmp_path, capsys, kind) -> None:
    path = path_of(steps(), own=True)
    for name in ("a", "b"):
        assert timeline.main([str(path), "-o", str(tmp_path / f"{name}.{kind}")]) == 0
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert f"b.{kind}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("marks", "fault", "what"),
    [(steps(), False, "it has no fault"), (steps()[:-1], True, "it has no first full-group step")],
)
def test_a_run_without_a_recovery_is_not_drawn(path_of, tmp_path, capsys, marks, fault, what) -> None:
    path = path_of(marks, fault=fault)
    with pytest.raises(SystemExit):
        timeline.main([str(path), "-o", str(tmp_path / "a.png")])
    assert what in capsys.readouterr().err
    assert not (tmp_path / "a.png").exists()
