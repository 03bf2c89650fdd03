import os
import signal
import subprocess
import sys
import threading
import time
from mmap import mmap
from random import Random

import pytest

from hpresil.base import span_ring as ring, spans
from hpresil.base.errors import DataError
from hpresil.telemetry import kept_trace, trace
from hpresil.telemetry.trace import TraceKeeper, read, read_all

ENDLESS = """
import sys, threading
from hpresil.base import spans
spans.attach(int(sys.argv[1]))
def work():
    while True:
        with spans.span("step"):
            for slot in range(3):
                with spans.span("slot", slot=slot):
                    pass
threading.Thread(target=work, daemon=True).start()
print("up", flush=True)
work()
"""


@pytest.fixture
def keeper(tmp_path, monkeypatch):
    monkeypatch.setattr(trace, "LOOK_S", 0.02)
    made = TraceKeeper(tmp_path / "trace", "n1", memory_spans=128, file_spans=300)
    yield made
    made.close()
    spans.detach()


def record(count, first=0):
    for slot in range(first, first + count):
        with spans.span("slot", slot=slot):
            pass


def until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def test_spans_arrive_in_the_file_while_the_process_lives(keeper, tmp_path):
    with keeper.lent("worker-4", 4) as fd:
        spans.attach(fd)
    spans.begin("step")
    record(5)
    path = tmp_path / "trace" / "worker-4.spans"
    until(lambda: path.exists() and len(read(path).spans) == 5)
    found = read(path)
    assert [span.slot for span in found.spans] == [0, 1, 2, 3, 4]
    assert [span.name for span in found.open] == ["step"]
    assert (found.name, found.worker, found.lost, found.head.node) == ("worker-4", 4, 0, "n1")
    assert abs(found.head.wall_offset_ns - (time.time_ns() - time.monotonic_ns())) < 60e9


def test_all_is_there_after_the_end_and_the_memory_is_given_back(keeper, tmp_path):
    with keeper.lent("worker-4", 4) as fd:
        spans.attach(fd)
    record(100)
    spans.detach()
    keeper.ended(4)
    until(lambda: not keeper._kept)
    assert [span.slot for span in read(tmp_path / "trace" / "worker-4.spans").spans] == list(range(100))


def test_memory_and_file_are_bounded_and_hold_the_newest(keeper, tmp_path):
    path = tmp_path / "trace" / "worker-4.spans"
    with keeper.lent("worker-4", 4) as fd:
        spans.attach(fd)
    for first in range(0, 1000, 100):
        record(100, first)
        until(lambda first=first: path.exists() and read(path).head.written == first + 100)
    found = read(path)
    assert [span.slot for span in found.spans] == list(range(700, 1000))
    assert found.lost == 700
    assert path.stat().st_size == ring.size(300)


def test_a_writer_that_is_faster_than_the_keeper_loses_the_oldest_only(keeper, tmp_path):
    with keeper.lent("worker-4", 4) as fd:
        spans.attach(fd)
    record(500)
    keeper.ended(4)
    until(lambda: not keeper._kept)
    found = read(tmp_path / "trace" / "worker-4.spans")
    assert [span.slot for span in found.spans] == list(range(372, 500))
    assert found.lost == 372


@pytest.mark.parametrize("seed", range(4))
def test_a_process_killed_at_any_point_leaves_a_whole_trace(keeper, tmp_path, seed):
    print("seed", seed)
    with keeper.lent("worker-0", 0) as fd:
        command = [sys.executable, "-c", ENDLESS, str(fd)]
        process = subprocess.Popen(command, pass_fds=(fd,), stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    time.sleep(0.3 * Random(seed).random())
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    keeper.ended(0)
    until(lambda: not keeper._kept)
    found = read(tmp_path / "trace" / "worker-0.spans")
    numbers = [span.number for span in found.spans]
    newest = found.head.written
    assert numbers == sorted(numbers)
    # Its last span, half written, may have taken the place of the oldest one.
    assert numbers[-127:] == list(range(newest - 127, newest)), "of the end nothing is missing"
    assert {span.name for span in found.spans} == {"step", "slot"}
    assert all(0 < span.begin_ns <= span.end_ns and span.track in (0, 1) for span in found.spans)
    assert {span.name for span in found.open} <= {"step", "slot"}


AGENT = """
import sys
from pathlib import Path
from hpresil.base import spans
from hpresil.telemetry import kept_trace, trace
trace.keep(Path(sys.argv[1]), "n1")
while True:
    with spans.span("decide"):
        pass
"""


def test_a_killed_agent_leaves_what_it_had_copied(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", AGENT, str(tmp_path / "trace")])
    path = tmp_path / "trace" / "agent-n1.spans"
    try:
        until(lambda: path.exists() and path.stat().st_size > ring.size(100) and read(path).spans)
    finally:
        process.kill()
        process.wait(10)
    found = read(path)
    assert {span.name for span in found.spans} == {"decide"}
    assert found.spans[-1].number == found.head.written - 1


def test_a_disk_that_is_full_for_a_while_costs_what_was_overwritten_only(keeper, tmp_path, monkeypatch):
    real = kept_trace._write_all

    def full(fd, data, offset):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_trace, "_write_all", full)
    with keeper.lent("worker-4", 4) as fd:
        spans.attach(fd)
    record(100)
    until(lambda: keeper.unwritten >= 2)
    monkeypatch.setattr(kept_trace, "_write_all", real)
    path = tmp_path / "trace" / "worker-4.spans"
    until(lambda: path.stat().st_size >= ring.HEADER_BYTES and len(read(path).spans) == 100)


def test_a_directory_that_cannot_be_made_ends_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    keeper = TraceKeeper(tmp_path / "file" / "trace", "n1")
    with keeper.lent("worker-4", 4) as fd:
        spans.attach(fd)
    record(3)
    keeper.close()
    spans.detach()
    assert keeper.unwritten >= 1


def test_a_disk_that_hangs_blocks_neither_the_writer_nor_the_end(tmp_path, monkeypatch):
    released, blocked = threading.Event(), threading.Event()

    def slow(fd, data, offset):
        blocked.set()
        released.wait(30)

    monkeypatch.setattr(kept_trace, "_write_all", slow)
    monkeypatch.setattr(trace, "CLOSE_S", 0.2)
    keeper = TraceKeeper(tmp_path / "trace", "n1")
    with keeper.lent("worker-4", 4) as fd:
        spans.attach(fd)
    record(3)
    assert blocked.wait(10)
    begin = time.monotonic()
    record(1000)
    keeper.close()
    assert time.monotonic() - begin < 5
    spans.detach()
    released.set()
    keeper._thread.join(10)


def test_waits_for_data_are_told_as_they_are_copied(keeper):
    waits = []
    keeper.on_data = lambda worker, step, seconds: waits.append((worker, step, seconds))
    with keeper.lent("worker-4", 4) as fd:
        spans.attach(fd)
    spans.at(7, 1)
    with spans.span("slot"), spans.span("data"):
        time.sleep(0.01)
    until(lambda: waits)
    ((worker, step, seconds),) = waits
    assert (worker, step) == (4, 7)
    assert 0.01 <= seconds < 10.0


def test_the_agent_keeps_its_own_trace_too(tmp_path):
    keeper = trace.keep(tmp_path / "trace", "node/1")
    with spans.span("notice", value=3):
        pass
    spans.detach()
    keeper.close()
    (found,) = read_all(tmp_path)
    assert (found.name, found.worker, found.head.pid) == ("agent-node_1", -1, os.getpid())
    assert [span.name for span in found.spans] == ["notice"]


def test_a_span_that_was_ending_is_not_open_as_well(tmp_path):
    data = bytearray(ring.header(capacity=4, pid=1, worker=0, wall_offset_ns=0, node="n"))
    place = (0, 5, 1, -1, 0, 0, 0, b"step")
    ring.RECORD.pack_into(data, ring.OPEN_AT, 0, 100, 0, *place)
    ring.COUNT.pack_into(data, ring.WRITTEN_AT, 1)
    (tmp_path / "a.spans").write_bytes(bytes(data) + ring.RECORD.pack(0, 100, 200, *place))
    found = read(tmp_path / "a.spans")
    assert (len(found.spans), found.open) == (1, ())


def test_a_truncated_file_gives_what_it_holds_and_a_foreign_one_is_named(keeper, tmp_path):
    with keeper.lent("worker-4", 4) as fd:
        spans.attach(fd)
    record(10)
    keeper.ended(4)
    until(lambda: not keeper._kept)
    path = tmp_path / "trace" / "worker-4.spans"
    path.write_bytes(path.read_bytes()[: ring.size(7) + 30])
    assert len(read(path).spans) == 7
    (tmp_path / "trace" / "foreign.spans").write_bytes(b"x" * 5000)
    with pytest.raises(DataError, match=r"foreign\.spans is no file of spans"):
        read(tmp_path / "trace" / "foreign.spans")
    assert [found.name for found in read_all(tmp_path)] == ["worker-4"]


def test_lent_memory_cannot_be_shrunk_by_who_has_it(keeper):
    with keeper.lent("worker-4", 4) as fd:
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        mmap(fd, 0).close()
