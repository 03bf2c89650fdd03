"""Clocks of several nodes: what is said of them, and what is made of it."""

import pytest

from hpresil.telemetry.clocks import RESOLUTION_S, WINDOW_S, Clock, Clocks, Comparison


def test_the_quickest_message_of_a_clock_is_believed():
    compared = Comparison()
    assert compared.heard(100.0, 5.003) == pytest.approx(-94.997)
    assert compared.heard(101.0, 6.050) is None
    assert compared.heard(102.0, 7.001) == pytest.approx(-94.999)
    assert compared.heard(103.0, 8.001 - RESOLUTION_S / 2) is None


def test_a_clock_that_runs_faster_is_followed():
    compared = Comparison()
    told = [found for i in range(600) if (found := compared.heard(i * 1.0, i * 1.0001)) is not None]
    assert told[-1] == pytest.approx(600 * 1e-4, abs=2 * WINDOW_S * 1e-4)
    assert len(told) <= 600 / WINDOW_S + 1


def test_between_two_readings_a_clock_goes_along_a_line_and_never_back():
    clock = Clock([(10.0, 1.0), (20.0, 0.5)])
    assert [clock.ours(t) for t in (0.0, 10.0, 15.0, 20.0, 30.0)] == [1.0, 11.0, 15.75, 20.5, 30.5]
    assert Clock().ours(3.0) == 3.0


def test_a_node_that_comes_back_has_a_new_clock():
    def event(t, name, **fields):
        return {"t": t, "event": name, "node": "n", **fields}

    clocks = Clocks(
        [
            event(1.0, "NodeJoined", pid=7),
            event(1.1, "ClockCompared", pid=7, offset_s=100.0),
            event(2.0, "WorkerStarted", worker=1, pid=70),
            event(5.0, "NodeJoined", pid=8),
            event(5.1, "ClockCompared", pid=8, offset_s=-3.0),
            event(6.0, "WorkerStarted", worker=2, pid=80),
            {"t": 6.0, "event": "WorkerStarted", "worker": 3, "pid": 90},
        ]
    )
    assert clocks.of("n", 1, 70).ours(0.0) == 100.0
    assert clocks.of("n", 2, 80).ours(0.0) == -3.0
    assert clocks.of("n", -1, 7).ours(0.0) == 100.0
    assert clocks.of("here", 3, 90).ours(0.0) == 0.0
    assert clocks.knows("n", 2, 80)
    assert not clocks.knows("n", 2, 81)
    assert not clocks.knows("n", -1, 9)
