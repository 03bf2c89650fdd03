"""The model of goodput: what follows from its formulas, and what must not."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from bench.model.goodput import (
    LLAMA_3,
    System,
    downtime_ratio,
    goodput,
    lost_s,
    save_interval_s,
    seconds_between_failures,
)

RESTART = System("restart", slower=0.0, save_pause_s=10.0, down_s=300.0, join_s_per_gpu=0.002, down_gpus=8)
IN_PLACE = System("in place", slower=0.01, save_pause_s=0.0, down_s=2.0, join_s_per_gpu=0.0, down_gpus=8)


def test_the_rate_is_one_failure_in_three_hours_at_16384() -> None:
    assert seconds_between_failures(16384, LLAMA_3) / 3600 == pytest.approx(3.09, abs=0.01)


def test_without_failures_only_the_overhead_is_left() -> None:
    assert goodput(IN_PLACE, 1000, rate=1e-12) == pytest.approx(1 / 1.01)


def test_the_interval_is_the_best_one() -> None:
    gpus, rate = 10_000, LLAMA_3
    best = save_interval_s(RESTART, gpus, rate)

    def cost(interval: float) -> float:  # a second of training: saving, and what failures redo
        return RESTART.save_pause_s / interval + interval / 2 / seconds_between_failures(gpus, rate)

    assert all(cost(best) <= cost(best * factor) for factor in (0.5, 0.9, 1.1, 2.0))
    assert math.isinf(save_interval_s(IN_PLACE, gpus, rate))


def test_goodput_falls_with_scale_and_with_everything_that_costs() -> None:
    scales = [goodput(RESTART, gpus) for gpus in (1_000, 10_000, 100_000)]
    assert scales == sorted(scales, reverse=True)
    for worse in ({"slower": 0.1}, {"save_pause_s": 60.0}, {"down_s": 900.0}, {"join_s_per_gpu": 0.01}):
        assert goodput(replace(RESTART, **worse), 10_000) < goodput(RESTART, 10_000)
    assert all(0 < share < 1 for share in scales)


def test_a_failure_costs_the_time_down_and_half_an_interval() -> None:
    interval = save_interval_s(RESTART, 8, LLAMA_3)
    assert lost_s(RESTART, 8, LLAMA_3) == pytest.approx(300 + interval / 2)
    assert lost_s(IN_PLACE, 100_000, LLAMA_3) == 2.0
    assert downtime_ratio(IN_PLACE, RESTART, 100_000) < 0.01
