import mmap
import os
import re
import signal
import threading
from pathlib import Path

import pytest

from hpresil.base import span_ring as ring, spans

CAPACITY = 64


@pytest.fixture
def memory():
    """Lend this process memory for spans while the test runs."""
    fd = os.memfd_create("spans")
    os.ftruncate(fd, ring.size(CAPACITY))
    with mmap.mmap(fd, ring.size(CAPACITY)) as mapped:
        made = ring.header(capacity=CAPACITY, pid=0, worker=3, wall_offset_ns=17, node="nøde")
        mapped[: ring.HEADER_BYTES] = bytes(made)
        spans.profile(None, None)  # another test may have connected one
        spans.attach(fd)
        spans.at(-1, 0)
        yield mapped
        spans.detach()
    os.close(fd)


def names(memory):
    return [span.name for span in ring.spans(memory)]


def opened(memory):
    return [span.name for span in ring.open_spans(memory)]


def test_a_record_has_64_bytes_and_the_head_its_place():
    assert ring.RECORD_BYTES == 64
    assert ring.HEAD.size <= ring.NODE_AT
    assert ring.OPEN_AT + ring.TRACKS * ring.DEPTH * ring.RECORD_BYTES == ring.HEADER_BYTES
    assert ring.NODE_AT + ring.NODE_BYTES <= ring.TRACKS_AT
    assert ring.TRACKS_AT + ring.TRACKS * ring.TRACK_BYTES <= ring.OPEN_AT


def test_every_name_fits_into_a_record():
    assert all(name.isascii() and 0 < len(name) <= ring.NAME_BYTES for name in spans.NAMES)


def test_a_span_is_written_with_its_place_when_it_ends(memory):
    spans.at(7, 2)
    with spans.span("slot", slot=5) as span:
        span.value = 99
        assert (names(memory), opened(memory)) == ([], ["slot"])
    (found,) = ring.spans(memory)
    assert (found.name, found.step, found.generation, found.slot, found.value) == ("slot", 7, 2, 5, 99)
    assert 0 < found.begin_ns <= found.end_ns
    assert opened(memory) == []
    head = ring.head(memory)
    assert (head.pid, head.worker, head.node, head.wall_offset_ns) == (os.getpid(), 3, "nøde", 17)


def test_spans_nest_and_inner_ones_end_first(memory):
    with spans.span("step"):
        with spans.span("slot"), spans.span("data"):
            assert opened(memory) == ["step", "slot", "data"]
        with spans.span("reduce"):
            pass
    assert names(memory) == ["data", "slot", "reduce", "step"]


def test_an_exception_ends_a_span(memory):
    with pytest.raises(ValueError, match="x"), spans.span("slot"):
        raise ValueError("x")
    assert (names(memory), opened(memory)) == (["slot"], [])


def test_what_an_abandoned_generator_left_open_ends_with_the_span_around_it(memory):
    def batches():
        with spans.span("slot"):
            yield 1

    with spans.span("step"):
        kept = batches()
        next(kept)
    assert (names(memory), opened(memory)) == (["slot", "step"], [])
    with spans.span("apply"):
        kept.close()  # its span is over already and takes nothing with it
        assert opened(memory) == ["apply"]
    assert names(memory) == ["slot", "step", "apply"]


def test_begin_and_end_may_lie_in_different_functions(memory):
    spans.begin("step")
    spans.begin("slot")
    spans.end("step")
    spans.end("step")
    assert names(memory) == ["slot", "step"]


def test_only_the_newest_spans_are_kept(memory):
    for slot in range(CAPACITY + 10):
        with spans.span("slot", slot=slot):
            pass
    assert [span.slot for span in ring.spans(memory)] == list(range(10, CAPACITY + 10))
    assert ring.head(memory).written == CAPACITY + 10


def test_deeper_spans_than_the_table_holds_are_recorded_all_the_same(memory):
    for _ in range(ring.DEPTH + 3):
        spans.begin("wait")
    assert len(opened(memory)) == ring.DEPTH
    spans.begin("step")
    for _ in range(ring.DEPTH + 3):
        spans.end("wait")
    assert (len(names(memory)), opened(memory)) == (ring.DEPTH + 4, [])


def test_each_thread_has_a_track_and_those_beyond_the_last_share_it(memory):
    def work():
        with spans.span("serve"):
            pass

    with spans.span("step"):
        pass
    for n in range(ring.TRACKS + 2):
        thread = threading.Thread(target=work, name=f"helper-{n}")
        thread.start()
        thread.join(10)
    found = list(ring.spans(memory))
    assert [span.track for span in found] == [*range(ring.TRACKS), *[ring.TRACKS - 1] * 3]
    assert [span.flags for span in found] == [0] * ring.TRACKS + [ring.OVERLAPPING] * 3
    assert ring.head(memory).tracks[:3] == ("MainThread", "helper-0", "helper-1")


def test_threads_that_write_at_once_lose_nothing(memory):
    def work():
        for _ in range(10):
            with spans.span("wait"):
                pass

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [span.number for span in ring.spans(memory)] == list(range(60))


def test_a_task_of_an_event_loop_adds_what_may_overlap(memory):
    begin = spans.clock()
    spans.add("decide", begin, generation=4, value=2)
    (found,) = ring.spans(memory)
    assert (found.name, found.generation, found.value, found.flags) == ("decide", 4, 2, ring.OVERLAPPING)
    assert found.begin_ns == begin


def test_a_killed_process_leaves_what_it_recorded_and_what_it_was_doing(memory):
    pid = os.fork()
    if pid == 0:
        try:
            fd = os.memfd_create("unused")
            spans._recorder = spans.Recorder(memory)
            os.close(fd)
            with spans.span("step"):
                with spans.span("slot", slot=1):
                    pass
                spans.begin("reduce")
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    assert (names(memory), opened(memory)) == (["slot"], ["step", "reduce"])


def test_a_forked_child_of_the_script_writes_nothing(memory):
    pid = os.fork()
    if pid == 0:
        with spans.span("slot"):
            os._exit(0 if spans.span("slot") is spans.span("step") else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert (names(memory), opened(memory)) == ([], [])


def test_without_memory_and_profiler_nothing_happens():
    spans.profile(None, None)
    spans.begin("step")
    with spans.span("slot") as span:
        span.value = 1
    spans.add("decide", 0)
    spans.end("step")


def test_a_profiler_sees_the_same_names_in_pairs(memory):
    seen = []
    spans.profile(seen.append, lambda: seen.append("end"))
    try:
        spans.begin("step")
        with spans.span("slot"):
            spans.begin("data")
        spans.end("step")
        spans.detach()
        with spans.span("apply"):
            pass
    finally:
        spans.profile(None, None)
    assert seen == ["step", "slot", "data", "end", "end", "end", "apply", "end"]


def test_an_entry_of_the_open_table_that_was_being_written_is_left_out():
    made = ring.header(capacity=1, pid=1, worker=0, wall_offset_ns=0, node="n")
    ring.RECORD.pack_into(made, ring.OPEN_AT, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0, b"")
    assert list(ring.open_spans(made)) == []


def test_foreign_memory_is_refused():
    with pytest.raises(ValueError, match="does not begin like a trace"):
        ring.head(bytes(ring.HEADER_BYTES))
    with pytest.raises(ValueError, match="too few"):
        ring.head(b"")


def test_every_name_is_in_the_documents_with_what_it_covers():
    text = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    listed = dict(re.findall(r"^\| `([a-z ]+)` \| (.+) \|$", text, re.MULTILINE))
    assert listed == spans.NAMES
