"""What the coordinator's node writes down of the words of another one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hpresil.launch.hosting import Hosting, House
from hpresil.launch.picture import Picture
from hpresil.launch.progress import Progress
from hpresil.launch.scrapes import Scrapes
from hpresil.membership import messages as m
from hpresil.membership.client import Client
from hpresil.telemetry.events import read
from hpresil.telemetry.record import Recorder


def hosting(directory: Path) -> Hosting:
    fake: Any = SimpleNamespace
    house = House(
        job=fake(cluster=fake(node="here")),
        node="here",
        directory=fake(),
        socket=directory / "socket",
        picture=Picture(),
        terminal=fake(say=lambda text: None),
        client=Client(),
        facts=dict,
        scrapes=Scrapes("127.0.0.1", 0),
        traces=fake(),
        failed=lambda error: None,
    )
    made = Hosting(house)
    files: Any = fake(events=directory / "events.jsonl", metrics=directory / "metrics.jsonl")
    made.chronicle = Progress(files, Recorder(None, 0), house.picture)
    return made


def test_an_event_of_another_node_is_written_with_its_name_and_our_times(tmp_path: Path) -> None:
    made = hosting(tmp_path)
    fields = {
        "worker": 3,
        "t": -1,
        "wall": "never",
        "event": "Forged",
        "name": "x",
        "self": 1,
        "node": "here",
    }
    made._heard("far", m.Noted(event="WorkerReady", fields=fields))
    (line,) = read(tmp_path / "events.jsonl")
    assert (line["event"], line["worker"], line["node"]) == ("WorkerReady", 3, "far")
    assert line["t"] > 0
    assert line["wall"] > 0
    assert "name" not in line
    made.chronicle.close()  # type: ignore[attr-defined]


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
    made = hosting(tmp_path)
    made._heard("far", m.Noted(event=event, fields=fields))
    made._heard("far", m.Noted(event="WorkerReady", fields={"worker": 1}))
    assert read(tmp_path / "events.jsonl")[-1]["worker"] == 1
    made.chronicle.close()  # type: ignore[attr-defined]
