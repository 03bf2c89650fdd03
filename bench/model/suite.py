"""Expected goodput at 1,000 to 100,000 GPUs: a model, not a measurement, which every case says in its name.

The formulas are those of `goodput.py`, the constants those of `constants.py`. The rate of failures, the cost
of joining, the time down and the pause of a save are varied one at a time, the last two of one system alone:
of a row "METRIC by CONSTANT ..." median is the expected value, min and max are the ends. ``downtime`` is what
failures cost (time down, steps done again), in percent of what they cost a restart from a checkpoint. A model
has no repeats: ``runs`` is null.

What it leaves out:

* Size. Noticing, starting processes, reading a checkpoint and copying state are as long as they were with two
  workers and 604 MB; with more ranks, larger models and one storage for all they grow, for a restart the
  most. Only joining grows here, and it for all alike. This is why the time down is varied up to 100 times.
* Failures that are not one GPU's: of a node, a switch, a power line; a second one during the recovery; hangs,
  which are noticed after a timeout only; silent errors and slow machines; failures that are not independent.
* What a spare costs: hpresil and a hot-spare restart are taken to have one always, at no price.
* Saving for other reasons than faults, and saves that fail.
* Whatever is not a failure: maintenance, evaluation, data that comes late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from bench.model import constants
from bench.model.goodput import LLAMA_3, System, downtime_ratio, goodput
from bench.rows import Row

SUITE = "model"
CONSTANTS = "model-constants"
SCALES = {f"model-{thousands}k": 1000 * thousands for thousands in (1, 2, 5, 10, 20, 50, 100)}
UNITS = {"slower": "1", "save_pause_s": "s", "down_s": "s", "join_s_per_gpu": "s"}
RATES, JOINS = (0.3, 1.0, 3.0), (0.0, 1.0, 3.0)
DOWNS, PAUSES = (0.3, 1.0, 100.0), (0.1, 1.0, 10.0)
"""By how much the constants are multiplied. A cost of joining of 0 is one that is paid before the failure."""
Figure = Callable[[System, float], float]
"""Returns what a system comes to at a rate of failures."""


def names(quick: bool) -> list[str]:
    """Return the cases."""
    return [CONSTANTS, *SCALES]


def rows(case: str, quick: bool) -> Iterator[Row]:
    """Yield the rows of one case."""
    given = constants.systems()
    if case == CONSTANTS:
        yield from _constants(given)
        return
    gpus, baseline = SCALES[case], given[0].system
    for one in given:
        yield from _varied(case, one.system, "goodput", "1", lambda system, rate: goodput(system, gpus, rate))
        yield from _varied(
            case,
            one.system,
            "downtime",
            "%",
            lambda system, rate: 100 * downtime_ratio(system, _joining_as(baseline, system), gpus, rate),
        )


def _varied(case: str, system: System, metric: str, unit: str, figure: Figure) -> Iterator[Row]:
    expected = figure(system, LLAMA_3)
    joining = [replace(system, join_s_per_gpu=system.join_s_per_gpu * factor) for factor in JOINS]
    down = [replace(system, down_s=system.down_s * factor) for factor in DOWNS]
    saving = [replace(system, save_pause_s=system.save_pause_s * factor) for factor in PAUSES]
    ends = {
        f"failure rate{_range(RATES)}": [figure(system, LLAMA_3 * factor) for factor in RATES],
        f"cost of joining{_range(JOINS)}": [figure(other, LLAMA_3) for other in joining],
        f"time down{_range(DOWNS)}": [figure(other, LLAMA_3) for other in down],
        f"pause of a save{_range(PAUSES)}": [figure(other, LLAMA_3) for other in saving],
    }
    yield _row(case, system.name, metric, unit, expected, [expected])
    for constant, figures in ends.items():
        yield _row(case, system.name, f"{metric} by {constant}", unit, expected, figures)


def _joining_as(baseline: System, system: System) -> System:
    """Return the baseline in the same world: joining costs everybody the same."""
    return replace(baseline, join_s_per_gpu=system.join_s_per_gpu)


def _range(factors: tuple[float, ...]) -> str:
    return f" x {factors[0]:g} to x {factors[-1]:g}"


def _constants(given: list[constants.Given]) -> Iterator[Row]:
    yield _row(f"{CONSTANTS} (bench/model/goodput.py)", "all", "failures a GPU and hour", "1", LLAMA_3, [])
    for one in given:
        for name, unit in UNITS.items():
            value = float(getattr(one.system, name))
            yield _row(f"{CONSTANTS} ({one.sources[name]})", one.system.name, name, unit, value, [])


def _row(case: str, system: str, metric: str, unit: str, expected: float, figures: list[float]) -> Row:
    least, most = min(figures, default=expected), max(figures, default=expected)
    return Row(SUITE, case, system, metric, unit, expected, least, most, None, None, None, None, None)
