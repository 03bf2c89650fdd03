import json

import pytest

import told_job
from hpresil.base import span_ring as ring
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


def abroad(run, *, worker=2, pid=102):
    """Let worker 2 be one of another node, whose monotonic clock is 100 s behind and whose wall clock 3 h."""
    path = run / "trace" / "worker-2.spans"
    data = bytearray(path.read_bytes())
    head = ring.head(data)
    wall = head.wall_offset_ns + (100 - 3 * 3600) * 10**9
    made = ring.header(capacity=head.capacity, pid=pid, worker=worker, wall_offset_ns=wall, node="n2")
    data[: ring.OPEN_AT] = made[: ring.OPEN_AT]
    ring.COUNT.pack_into(data, ring.WRITTEN_AT, head.written)
    path.unlink()
    there = run / "nodes" / "n2" / "trace"
    there.mkdir(parents=True)
    (there / path.name).write_bytes(data)
    lines = []
    for event in map(json.loads, (run / "events.jsonl").read_text().splitlines()):
        if event["event"] == "WorkerStarted" and event["worker"] == 2:
            told = {"t": 1.5, "wall": 0.0, "node": "n2", "pid": 77}
            lines.append(told | {"event": "NodeJoined", "address": "n2:1"})
            lines.append(told | {"event": "ClockCompared", "offset_s": 100.0})
            event["node"] = "n2"
        lines.append(event)
    (run / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_spans_of_another_node_are_moved_to_the_clock_of_the_events(tmp_path):
    run = told_job.write(tmp_path / "run")
    before = story.read(run).processes[3].activities[0].begin
    abroad(run)
    moved = story.read(run).processes[3]
    assert (moved.node, moved.worker) == ("n2", 2)
    assert moved.activities[0].begin == pytest.approx(before + 100.0)


def test_spans_that_another_job_left_in_a_nodes_directory_are_not_this_jobs(tmp_path):
    run = told_job.write(tmp_path / "run")
    abroad(run, pid=4711)
    assert [process.worker for process in story.read(run).processes] == [-1, 0, 1, 3]


def test_spans_from_before_a_node_was_lost_are_there(tmp_path):
    run = told_job.write(tmp_path / "run")
    abroad(run)
    earlier = run / "nodes" / "n2" / "earlier" / "1"
    earlier.mkdir(parents=True)
    (run / "nodes" / "n2" / "trace").rename(earlier / "trace")
    assert [process.worker for process in story.read(run).processes] == [-1, 0, 1, 2, 3]


def test_a_wall_clock_that_is_set_while_the_job_runs_moves_nothing(tmp_path):
    run = told_job.write(tmp_path / "run")
    before = story.read(run).processes[1].activities[0].begin
    path = run / "trace" / "worker-0.spans"
    data = bytearray(path.read_bytes())
    head = ring.head(data)
    ring.HEAD.pack_into(
        data, 0, ring.MAGIC, ring.FORMAT, ring.RECORD_BYTES, head.capacity, head.written, head.pid, 0,
        head.wall_offset_ns + 7200 * 10**9,
    )  # fmt: skip
    path.write_bytes(data)
    assert story.read(run).processes[1].activities[0].begin == before


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


def test_why_a_worker_was_lost_names_its_stacks():
    assert story.why_lost({"why": "hung in computing", "stacks": "/r/logs/worker-2.stacks"}) == (
        "hung in computing; stacks in /r/logs/worker-2.stacks"
    )
    assert story.why_lost({"why": "killed by SIGKILL", "stacks": None}) == "killed by SIGKILL"
    assert story.why_lost({}) == ""
