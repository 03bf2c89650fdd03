"""What native code does is in the trace of its process, under the names that Python and profilers know."""

from __future__ import annotations

import os
import subprocess
import sys
from mmap import mmap
from pathlib import Path

import pytest

from hpresil import native
from hpresil.base import span_ring as ring, spans
from hpresil.base.errors import NativeError
from hpresil.telemetry import trace
from hpresil.telemetry.trace import TraceKeeper

BIG = 1 << 20
WORK = """
import os, sys, threading
from hpresil import native
native.attach_spans(int(sys.argv[1]))
data = bytes(1 << 20)
def work():
    for _ in range(500):
        native.crc32c(data)
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
child = os.fork()
if child == 0:
    native.crc32c(data)
    os._exit(0)
os.waitpid(child, 0)
"""


def kept(tmp_path: Path, body: str) -> trace.Trace:
    """Run a program that records spans into lent memory; return its trace."""
    keeper = TraceKeeper(tmp_path / "trace", "n1")
    with keeper.lent("worker-4", 4) as fd:
        subprocess.run([sys.executable, "-c", body, str(fd)], pass_fds=[fd], check=True, timeout=120)
    keeper.close()
    (found,) = trace.read_all(tmp_path)
    return found


def test_python_and_native_code_agree_on_the_names() -> None:
    assert set(native.span_names()) == {name for name in spans.NAMES if name.startswith("native ")}
    assert all(len(name) <= ring.NAME_BYTES for name in native.span_names())


def test_threads_of_native_code_record_without_a_lock_and_a_forked_child_does_not(tmp_path: Path) -> None:
    found = kept(tmp_path, WORK)
    assert (found.name, found.worker) == ("worker-4", 4)
    assert {(span.name, span.value) for span in found.spans} == {("native checksum", BIG)}
    assert found.head.written == 2000, "every span has a number of its own"
    assert len(found.spans) == 2000
    assert {span.track for span in found.spans} == {ring.TRACKS + i for i in range(4)}
    assert all(found.head.tracks[span.track].startswith("native ") for span in found.spans)
    assert all(0 < span.begin_ns <= span.end_ns for span in found.spans)


def test_the_log_of_native_code_is_bounded_and_holds_the_newest(tmp_path: Path) -> None:
    body = (
        "import sys; from hpresil import native; native.attach_spans(int(sys.argv[1]))\n"
        "data = bytes(1 << 16)\nfor _ in range(9000): native.crc32c(data)"
    )
    found = kept(tmp_path, body)
    assert found.head.written == 9000
    assert trace.NATIVE_SPANS - 1 <= len(found.spans) <= 9000
    assert found.spans[-1].number == 8999


def test_few_bytes_leave_no_span_and_no_file(tmp_path: Path) -> None:
    body = (
        "import sys; from hpresil import native; native.attach_spans(int(sys.argv[1]))\n"
        "native.crc32c(bytes(100))"
    )
    assert kept(tmp_path, body).spans == ()
    assert not (tmp_path / "trace" / "worker-4.native.spans").exists()


def test_native_spans_lie_beside_those_of_python(tmp_path: Path) -> None:
    body = (
        "import sys; from hpresil import native; from hpresil.base import spans\n"
        "fd = int(sys.argv[1]); spans.attach(fd); native.attach_spans(fd)\n"
        "with spans.span('serve'): native.crc32c(bytes(1 << 20))"
    )
    found = kept(tmp_path, body)
    by_name = {span.name: span for span in found.spans}
    assert set(by_name) == {"serve", "native checksum"}
    assert by_name["serve"].begin_ns <= by_name["native checksum"].begin_ns
    assert by_name["native checksum"].end_ns <= by_name["serve"].end_ns


def test_memory_without_a_part_for_native_code_is_refused() -> None:
    fd = native.memfd("one", ring.size(8))
    try:
        with pytest.raises(NativeError, match="no memory of a trace"):
            native.attach_spans(fd)
        with mmap(fd, ring.size(8)) as memory:
            header = ring.header(capacity=8, pid=0, worker=0, wall_offset_ns=0, node="n")
            memory[: ring.HEADER_BYTES] = bytes(header)
            with pytest.raises(NativeError, match="no part for native code"):
                native.attach_spans(fd)
    finally:
        os.close(fd)
