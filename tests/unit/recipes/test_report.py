import io
import json

from rich.console import Console

from hpresil.recipes.demo.report import as_json, fault_rows, missing, table, write_json
from hpresil.recipes.demo.verdicts import Verdict
from hpresil.telemetry.recovery import recoveries

VERDICTS = {"bit_identical": Verdict(True, ""), "exactly_once": Verdict(False, "")}


def event(t: float, event: str, **fields):
    return {"t": t, "wall": 0.0, "event": event, **fields}


def events() -> list[dict]:
    """What a job writes in the demo: worker 1 is killed at 10.0, worker 2 stopped at 20.0."""
    return [
        event(1.0, "ViewInstalled", generation=1, members=[0, 1, 2]),
        event(9.8, "StepCommitted", step=7, generation=1, world_size=3, loss=4.0, worker=0),
        event(10.001, "WorkerLost", worker=1, rank=1, reason="killed", last_stamp=9.9),
        event(10.002, "ViewInstalled", generation=2, members=[0, 3, 2]),
        event(10.010, "Decided", generation=2, target=8, sources={"3": 0}, slots=[], initial=False),
        event(10.030, "GroupBuilt", generation=2, worker=3),
        event(10.050, "Restored", generation=2, worker=3, version=8, bytes=39),
        event(10.250, "StepCompleted", step=8, generation=2),
        event(24.0, "WorkerLost", worker=2, rank=2, reason="hung", last_stamp=19.9),
        event(24.1, "ViewInstalled", generation=3, members=[0, 3]),
        event(24.2, "Decided", generation=3, target=20, sources={}, slots=[], initial=False),
        event(24.5, "StepCompleted", step=20, generation=3),
        event(30.0, "ViewInstalled", generation=4, members=[0, 3, 4]),
        event(30.1, "Decided", generation=4, target=40, sources={"4": 0}, slots=[], initial=False),
        event(30.2, "Restored", generation=4, worker=4, version=40, bytes=39),
        event(30.5, "StepCompleted", step=40, generation=4),
    ]


def rows(seen=None):
    return fault_rows(recoveries(seen or events(), {1: 10.0, 2: 20.0}), {"killed": 1, "hung": 2})


def test_each_fault_has_a_row_that_begins_at_the_fault():
    killed, hung, grown = rows()
    assert (killed.kind, killed.detect_ms, killed.total_ms, killed.steps_redone) == ("killed", 1.0, 250.0, 0)
    assert (killed.regroup_ms, killed.restore_ms, killed.first_step_ms) == (29.0, 20.0, 200.0)
    assert (hung.kind, hung.detect_ms, hung.total_ms) == ("hung", 4000.0, 4500.0)
    assert (grown.kind, grown.detect_ms, grown.restore_ms, grown.total_ms) == ("grown", 0.0, 100.0, 500.0)
    assert missing(rows()) == []


def test_a_fault_without_a_first_step_is_missing():
    assert missing(rows(events()[:-1])) == ["grown"]
    assert missing(rows(events()[:10])) == ["hung", "grown"]


def test_the_loss_of_a_worker_nobody_harmed_is_not_a_fault_of_the_demo():
    assert fault_rows(recoveries(events(), {}), {"killed": 9, "hung": 2})[0].kind == "hung"


def test_a_killed_worker_counts_as_killed_whatever_the_launcher_saw_first():
    seen = events()
    seen[2]["reason"] = "ended"
    assert [row.kind for row in rows(seen)] == ["killed", "hung", "grown"]


def test_the_json_has_the_promised_form(tmp_path):
    path = tmp_path / "demo.json"
    write_json(path, as_json(VERDICTS, rows()))
    result = json.loads(path.read_text())
    assert result["verdicts"] == {"bit_identical": True, "exactly_once": False}
    assert [set(fault) for fault in result["faults"]] == 3 * [
        {"kind", "detect_ms", "regroup_ms", "restore_ms", "first_step_ms", "total_ms", "steps_redone"}
    ]
    assert [path] == list(tmp_path.iterdir())


def test_the_table_has_a_line_for_each_fault():
    out = io.StringIO()
    Console(file=out, width=120).print(table(rows()))
    text = out.getvalue()
    for part in (
        "killed, spare takes over",
        "hung, group shrinks",
        "group grows back",
        "4,000.0",
        "steps redone",
    ):
        assert part in text
