"""Waits that can be left behind."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from hpresil.base.deadline import Deadline
from hpresil.comm.waiting import Waiter


class Work:
    """An operation that ends when the test says so."""

    def __init__(self, error: Exception | None = None, *, ended: bool = True) -> None:
        self.error, self.ended = error, threading.Event()
        self.waited = False
        if ended:
            self.ended.set()

    def wait(self, timeout: timedelta) -> bool:
        self.waited = True
        self.ended.wait(timeout.total_seconds())
        if self.error is not None:
            raise self.error
        return True


@pytest.fixture
def waiter():
    made = Waiter("test-wait")
    yield made
    made.end()
    assert made.thread is not None
    made.thread.join(5.0)
    assert not made.thread.is_alive()


def test_all_works_are_waited_for_and_given_away(waiter) -> None:
    works = [Work(), Work()]
    kept = list(works)
    waiter.finish(works, Deadline(5.0, "a test"), lambda: False)
    assert works == []
    assert all(work.waited for work in kept)


def test_the_first_failure_is_raised_and_the_rest_is_dropped(waiter) -> None:
    late = Work()
    with pytest.raises(RuntimeError, match="connection reset"):
        waiter.finish([Work(RuntimeError("connection reset")), late], Deadline(5.0, "a test"), lambda: False)
    assert not late.waited
    waiter.finish([Work()], Deadline(5.0, "a test"), lambda: False)


def test_an_operation_that_fails_soon_after_the_interruption_is_not_left_behind(waiter) -> None:
    work = Work(RuntimeError("closed"), ended=False)
    threading.Timer(0.05, work.ended.set).start()
    with pytest.raises(RuntimeError, match="closed"):
        waiter.finish([work], Deadline(5.0, "a test"), lambda: True)
    assert not waiter.left_behind


def test_an_operation_that_is_lost_is_left_behind(waiter) -> None:
    work = Work(ended=False)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="although its connections were shut down"):
        waiter.finish([work], Deadline(60.0, "a test"), lambda: True)
    assert time.monotonic() - began < 5.0
    assert waiter.left_behind
    work.ended.set()


def test_an_operation_that_does_not_keep_its_time_limit_is_left_behind(waiter) -> None:
    class Deaf(Work):
        def wait(self, timeout: timedelta) -> bool:
            return super().wait(timedelta(seconds=60.0))

    work = Deaf(ended=False)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="did not end in time"):
        waiter.finish([work], Deadline(0.1, "a test"), lambda: False)
    assert time.monotonic() - began < 5.0
    assert waiter.left_behind
    work.ended.set()
