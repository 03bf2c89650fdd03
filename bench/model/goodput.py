"""Expected goodput of a synchronous job at a scale that was not measured: a model, not a measurement.

Failures come at random, each GPU's independently, so a job of n GPUs meets one every ``1 / (rate * n)``
seconds of its life on average. A failure costs the time without steps and the steps that are done again;
saving costs a pause each time. Where saving is what is lost, the interval is the best one: Young's, ``sqrt(2
* pause * time between failures)`` (J. W. Young, "A first order approximation to the optimum checkpoint
interval", CACM 17(9), 1974). Pure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HOUR_S = 3600.0
LLAMA_3 = 419 / (54 * 24 * 16384)
"""Failures a GPU and hour: 419 unexpected interruptions in 54 days on 16,384 GPUs ("The Llama 3 Herd of
Models", arXiv 2407.21783, section 3.3.4)."""


@dataclass(frozen=True)
class System:
    """What a system costs.

    Attributes:
        name: Its name.
        slower: Share by which its steps are longer than without protection.
        save_pause_s: What training waits for at each save; 0: nothing is saved in order to recover.
        down_s: From a failure to the next step of the full group, at ``down_gpus``; steps redone not counted.
        join_s_per_gpu: What that grows by with each further GPU: communicators that are set up anew.
        down_gpus: How many GPUs ``down_s`` was measured with.
    """

    name: str
    slower: float
    save_pause_s: float
    down_s: float
    join_s_per_gpu: float
    down_gpus: int


def seconds_between_failures(gpus: int, rate: float) -> float:
    """Return the expected time between failures of a job; ``rate``: failures a GPU and hour."""
    return HOUR_S / (rate * gpus)


def save_interval_s(system: System, gpus: int, rate: float) -> float:
    """Return the best time between two saves; infinite if nothing has to be saved."""
    if system.save_pause_s == 0:
        return math.inf
    return math.sqrt(2 * system.save_pause_s * seconds_between_failures(gpus, rate))


def lost_s(system: System, gpus: int, rate: float) -> float:
    """Return what one failure costs: the time down, and half of what is computed between two saves."""
    down = system.down_s + system.join_s_per_gpu * max(0, gpus - system.down_gpus)
    interval = save_interval_s(system, gpus, rate)
    return down + (0.0 if math.isinf(interval) else interval / 2)


def goodput(system: System, gpus: int, rate: float = LLAMA_3) -> float:
    """Return the share of the job's time that goes into steps that count, at the speed without protection."""
    between = seconds_between_failures(gpus, rate)
    interval = save_interval_s(system, gpus, rate)
    saving = 0.0 if math.isinf(interval) else system.save_pause_s / (interval + system.save_pause_s)
    up = between / (between + lost_s(system, gpus, rate))
    return up * (1 - saving) / (1 + system.slower)


def downtime_ratio(system: System, baseline: System, gpus: int, rate: float = LLAMA_3) -> float:
    """Return what failures cost a system, as a share of what they cost the baseline."""
    return lost_s(system, gpus, rate) / lost_s(baseline, gpus, rate)
