"""What the coordinator's node writes down of the words of another one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpresil.base.deadline import now
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Progress
from hpresil.launch.scribe import Scribe
from hpresil.membership import messages as m
from hpresil.telemetry.events import read
from hpresil.telemetry.recorder import Recorder


def scribe(directory: Path) -> Scribe:
    terminal: Any = SimpleNamespace(say=lambda text: None)
    files: Any = SimpleNamespace(events=directory / "events.jsonl", metrics=directory / "metrics.jsonl")
    progress = Progress(files, Recorder(None, 0), Picture(), lambda text: None)
    made = Scribe(progress, Picture(), terminal, lambda broken: None)
    return made


def test_an_event_of_another_node_is_written_with_its_name_and_our_times(tmp_path: Path) -> None:
    made = scribe(tmp_path)
    fields = {
        "worker": 3,
        "t": -1,
        "wall": "never",
        "event": "Forged",
        "name": "x",
        "self": 1,
        "node": "here",
    }
    made.heard("far", m.Noted(at=0.0, event="WorkerReady", fields=fields))
    (line,) = read(tmp_path / "events.jsonl")
    assert (line["event"], line["worker"], line["node"]) == ("WorkerReady", 3, "far")
    assert line["t"] > 0
    assert line["wall"] > 0
    assert "name" not in line


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("ViewInstalled", {}),
        ("Decided", {"generation": [1]}),
        ("WorkerReady", {"worker": b"\xff"}),
        ("WorkerReady", {"worker": float("nan")}),
        ("", {"": None}),
        ("x" * 100_000, {"x" * 100_000: "\ud7ff" * 1000}),
    ],
)
def test_an_agent_that_tells_nonsense_does_not_end_the_job(
    tmp_path: Path, event: str, fields: dict[str, Any]
) -> None:
    made = scribe(tmp_path)
    made.heard("far", m.Noted(at=0.0, event=event, fields=fields))
    made.heard("far", m.Noted(at=0.0, event="WorkerReady", fields={"worker": 1}))
    assert read(tmp_path / "events.jsonl")[-1]["worker"] == 1


def test_times_of_another_node_are_told_by_our_clock(tmp_path: Path) -> None:
    made = scribe(tmp_path)
    theirs = now() - 10_000.0
    made.heard("far", m.AgentJoined(node="far", pid=7, address="far:1"))
    made.heard("far", m.Alive(at=theirs))
    made.heard("far", m.Alive(at=theirs - 0.2))  # a slow one says nothing new
    lost = {"worker": 3, "last_stamp": theirs - 2.0}
    made.heard("far", m.Noted(at=theirs, event="WorkerLost", fields=lost))
    joined, compared, noted = read(tmp_path / "events.jsonl")
    assert (joined["event"], compared["event"]) == ("NodeJoined", "ClockCompared")
    assert (compared["node"], compared["pid"]) == ("far", 7)
    assert compared["offset_s"] == pytest.approx(10_000.0, abs=0.5)
    assert noted["t"] - noted["last_stamp"] == pytest.approx(2.0, abs=0.5)


def test_a_clock_that_is_no_number_is_not_written_down(tmp_path: Path) -> None:
    made = scribe(tmp_path)
    made.heard("far", m.Alive(at=1.0))  # before it has joined
    made.heard("far", m.AgentJoined(node="far", pid=7, address="far:1"))
    made.heard("far", m.Alive(at=float("nan")))
    made.heard("far", m.Noted(at=float("inf"), event="WorkerLost", fields={"worker": 3, "last_stamp": 2.0}))
    assert [line["event"] for line in read(tmp_path / "events.jsonl")] == ["NodeJoined", "WorkerLost"]
    assert read(tmp_path / "events.jsonl")[-1]["last_stamp"] == 2.0
