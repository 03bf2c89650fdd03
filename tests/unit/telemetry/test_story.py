import json

import pytest

import told_job
from hpresil.base.errors import DataError
from hpresil.telemetry import story


@pytest.fixture
def told(tmp_path):
    return story.read(told_job.write(tmp_path / "run"))


def test_processes_come_with_what_they_did_on_the_clock_of_the_events(told):
    assert [process.name for process in told.processes] == [
        "agent-n1",
        "worker-0",
        "worker-1",
        "worker-2",
        "worker-3",
    ]
    notice = told.processes[0].activities[0]
    assert (notice.name, notice.begin, notice.end, notice.value) == ("notice", 5.009, 5.012, 1)


def test_what_a_process_died_in_ends_with_it(told):
    cut = [activity for activity in told.processes[2].activities if activity.cut]
    assert [(activity.name, activity.begin, activity.end) for activity in cut] == [
        ("step", 4.8, 5.01),
        ("slot", 4.9, 5.01),
    ]


def test_a_worker_has_a_rank_at_each_time(told):
    assert told.place(2, 4.0) == (-1, 1)
    assert told.place(2, 5.5) == (1, 2)
    assert told.place(1, 5.5) == (-1, 2)
    assert told.place(0, 0.0) == (-1, 0)


def test_the_slowest_members_wait_for_data_counts(told):
    assert {step: round(seconds, 6) for step, seconds in told.data_waits().items()} == {9: 0.06}
    assert told.goodput()["data"] == pytest.approx(0.06)


def test_the_spans_of_another_machine_are_moved_to_the_clock_of_the_events(tmp_path):
    run = told_job.write(tmp_path / "run")
    path = run / "trace" / "worker-2.spans"
    data = bytearray(path.read_bytes())
    # The other machine's monotonic clock is 100 s behind: its wall clock is as much further ahead of it.
    from hpresil.base import span_ring as ring

    head = ring.head(data)
    made = ring.header(
        capacity=head.capacity, pid=1, worker=2, wall_offset_ns=head.wall_offset_ns + 100 * 10**9, node="n2"
    )
    data[: ring.OPEN_AT] = made[: ring.OPEN_AT]
    ring.COUNT.pack_into(data, ring.WRITTEN_AT, head.written)
    path.write_bytes(data)
    moved = story.read(run).processes[3]
    assert moved.node == "n2"
    assert moved.activities[0].begin == pytest.approx(105.06)


def test_injected_faults_say_when_a_fault_happened(tmp_path):
    run = told_job.write(tmp_path / "run")
    assert story.read(run).recoveries[0].detect_ms == pytest.approx(60.0)
    story.write_injected(run, {"killed": (1, told_job.KILLED_AT)})
    assert story.read(run).recoveries[0].detect_ms == pytest.approx(10.0)
    (run / story.INJECTED).write_text("{}")
    with pytest.raises(DataError, match="no list of injected faults"):
        story.read(run)


def test_a_directory_without_a_job_is_named(tmp_path):
    with pytest.raises(DataError, match="holds no job"):
        story.read(tmp_path)
    (tmp_path / "events.jsonl").write_text(json.dumps({"no": "event"}) + "\n")
    with pytest.raises(DataError, match="holds no event yet"):
        story.read(tmp_path)
