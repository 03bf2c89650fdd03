"""The store of one generation: prompt ends, one request a key, no deadlock with torch."""

import threading
import time
from datetime import timedelta

import pytest

from hpresil.base.errors import DeadlineExceeded, GenerationChanged
from hpresil.comm.store import GenerationStore


class ControlPlane:
    """Answers when told to; counts requests."""

    def __init__(self):
        self.values, self.requests, self.asked = {}, [], threading.Event()
        self.changed = threading.Condition()

    def put(self, key, value):
        with self.changed:
            self.values[key] = value
            self.changed.notify_all()

    def fetch(self, keys, timeout_s):
        self.requests.append(keys)
        self.asked.set()
        with self.changed:
            if not self.changed.wait_for(lambda: all(key in self.values for key in keys), timeout_s):
                raise TimeoutError("no such key")
            return [self.values[key] for key in keys]


def make(timeout_s=5.0):
    plane = ControlPlane()
    return plane, GenerationStore(plane.put, plane.fetch, generation=3, timeout_s=timeout_s)


def test_a_value_is_asked_for_once():
    plane, store = make()
    store.set("a", "text")
    store.set("b", b"\x00\xff")
    store.wait(["a", "b"], timedelta(seconds=1))
    assert (store.get("a"), store.multi_get(["b", "a"])) == (b"text", [b"\x00\xff", b"text"])
    assert plane.requests == [["a", "b"]]


def test_an_end_is_prompt_for_who_waits_and_final_for_who_comes_later():
    plane, store = make(timeout_s=60.0)
    ended = []

    def end():
        assert plane.asked.wait(10.0)
        ended.append(time.monotonic())
        store.end()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(GenerationChanged, match="generation 3 was replaced"):
        store.get("never")
    assert time.monotonic() - ended[0] < 10.0
    thread.join(5.0)
    store.end()
    for later in (lambda: store.set("a", "b"), lambda: store.get("a"), lambda: store.wait(["a"])):
        with pytest.raises(GenerationChanged):
            later()
    plane.put("never", b"")  # lets the abandoned lookup go


def test_a_key_that_never_comes_ends_at_the_deadline():
    released = threading.Event()
    store = GenerationStore(print, lambda keys, timeout_s: released.wait(5.0), generation=3, timeout_s=0.05)
    with pytest.raises(DeadlineExceeded, match=r"'never'.* in generation 3"):
        store.get("never")
    released.set()


def test_an_error_of_the_control_plane_reaches_the_caller():
    store = GenerationStore(lambda k, v: None, lambda keys, timeout_s: 1 / 0, generation=3, timeout_s=1.0)
    with pytest.raises(ZeroDivisionError):
        store.get("a")
