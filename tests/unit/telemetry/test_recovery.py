import errno
import os
from pathlib import Path

from hpresil.telemetry.events import EventLog, parse, read
from hpresil.telemetry.recovery import last_phases, recoveries


def event(t, name, **fields):
    return {"t": t, "wall": 0.0, "event": name, **fields}


FORMED = [
    event(1.0, "ViewInstalled", generation=1, members=[0, 1]),
    event(1.1, "Decided", generation=1, target=0),
    event(1.2, "GroupBuilt", generation=1, worker=0),
    event(2.0, "StepCommitted", step=0, generation=1),
    event(2.1, "StepCompleted", step=0, generation=1),
]
REPLACED = [
    event(3.010, "WorkerLost", worker=1, rank=1, reason="killed", last_stamp=2.5),
    event(3.011, "ViewInstalled", generation=2, members=[0, 2]),
    event(3.020, "Decided", generation=2, target=1),
    event(3.030, "GroupBuilt", generation=2, worker=0),
    event(3.040, "GroupBuilt", generation=2, worker=2),
    event(3.060, "Restored", generation=2, worker=2, version=1, bytes=10),
    event(3.200, "StepCommitted", step=1, generation=2),
    event(3.210, "StepCompleted", step=1, generation=2),
]


def test_the_first_generation_is_no_recovery():
    assert recoveries(FORMED) == []
    assert last_phases([]) == {}


def test_a_replaced_worker_is_told_phase_by_phase():
    (found,) = recoveries(FORMED + REPLACED, {1: 3.0})
    assert (found.generation, found.kind, found.workers, found.steps_redone) == (2, "killed", (1,), 0)
    assert found.phases() == {
        "detect_ms": 10.0,
        "regroup_ms": 30.0,
        "restore_ms": 20.0,
        "first_step_ms": 150.0,
        "total_ms": 210.0,
    }


def test_without_a_known_fault_time_the_last_sign_of_life_counts():
    (found,) = recoveries(FORMED + REPLACED)
    assert round(found.detect_ms) == 510
    assert last_phases([found])["detect_ms"] == 510.0


def test_a_restore_that_ends_during_the_regroup_costs_nothing_more():
    early = [e | {"t": 3.025} if e["event"] == "Restored" else e for e in REPLACED]
    (found,) = recoveries(FORMED + early, {1: 3.0})
    assert (found.restore_ms, round(found.total_ms)) == (0.0, 210)


def test_growth_begins_with_its_view():
    grown = [
        event(5.0, "ViewInstalled", generation=2, members=[0, 1, 2]),
        event(5.1, "Decided", generation=2, target=1),
        event(5.2, "StepCompleted", step=1, generation=2),
    ]
    (found,) = recoveries(FORMED + grown)
    assert (found.kind, found.detect_ms, round(found.total_ms)) == ("grown", 0.0, 200)


def test_a_change_overtaken_by_a_second_fault_ends_with_the_generation_that_commits():
    second = [
        event(3.050, "WorkerLost", worker=2, rank=1, reason="exited", last_stamp=3.04),
        event(3.051, "ViewInstalled", generation=3, members=[0]),
        event(3.060, "Decided", generation=3, target=1),
        event(3.300, "StepCompleted", step=1, generation=3),
    ]
    first, then = recoveries(FORMED + REPLACED[:2] + second, {1: 3.0, 2: 3.045})
    assert (first.kind, then.kind) == ("killed", "exited")
    assert (round(first.total_ms), round(then.total_ms)) == (300, 255)


def test_steps_done_again_are_counted():
    lost = [e | {"target": 0} if e["event"] == "Decided" else e for e in REPLACED]
    assert recoveries(FORMED + lost)[0].steps_redone == 1


def test_a_lost_spare_is_no_recovery():
    assert recoveries([*FORMED, event(3.0, "WorkerLost", worker=5, reason="killed", last_stamp=2.0)]) == []


def test_an_unfinished_recovery_has_no_total():
    (found,) = recoveries(FORMED + REPLACED[:3], {1: 3.0})
    assert found.total_ms is None
    assert set(found.phases()) == {"detect_ms", "regroup_ms", "restore_ms"}


def test_events_are_lines_and_a_torn_last_line_is_left_out(tmp_path):
    log = EventLog(tmp_path / "events.jsonl")
    log.add("WorkerStarted", worker=3)
    log.close()
    log.add("JobEnded", status=0)
    (line,) = read(tmp_path / "events.jsonl")
    assert (line["event"], line["worker"]) == ("WorkerStarted", 3)
    assert len(list(parse((tmp_path / "events.jsonl").read_bytes() + b'{"t": 1'))) == 1
    assert list(parse(b'{"t": 1{"t": 2}\n{"t": 3}\n')) == [{"t": 3}]


def test_a_full_disk_does_not_end_the_job():
    log = EventLog(Path("/dev/full"))
    assert log.add("WorkerStarted", worker=3)["worker"] == 3
    log.add("WorkerStarted", worker=4)
    assert log.unwritten == 2
    log.close()


def test_a_disk_that_was_full_costs_whole_lines_and_people_are_told(tmp_path, monkeypatch):
    said = []
    log = EventLog(tmp_path / "events.jsonl", said.append)
    log.add("WorkerStarted", worker=1)
    real, room = os.write, 20

    def into_the_rest_of_the_disk(fd, raw):
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written, room = real(fd, raw[:room]), 0
        return written

    with monkeypatch.context() as full:
        full.setattr(os, "write", into_the_rest_of_the_disk)
        log.add("WorkerStarted", worker=2)
        log.add("WorkerStarted", worker=3)
    log.add("WorkerStarted", worker=4)
    assert (tmp_path / "events.jsonl").read_bytes().count(b"\n") == 2
    assert [event["worker"] for event in read(tmp_path / "events.jsonl")] == [1, 4]
    assert [text.partition(" ")[2] for text in said] == [
        "cannot be written (No space left on device): the job goes on, its lines are missing until it can be",
        "can be written again; 2 lines are missing there",
    ]
    log.close()
    assert len(said) == 2


def test_members_that_handed_over_are_no_fault():
    left = [
        event(3.0, "ViewInstalled", generation=2, members=[1]),
        event(3.1, "Decided", generation=2, target=1),
        event(3.2, "WorkerLeft", worker=0, status=0),
        event(3.5, "StepCompleted", step=1, generation=2),
    ]
    (found,) = recoveries(FORMED + left)
    assert (found.kind, found.workers, found.detect_ms, found.steps_redone) == ("handed over", (), 0.0, 0)
