"""What the model takes as given: from the newest committed results where there are some, else from here.

Every constant is measured on two workers on CPUs, published, or assumed; each says which. Where two figures
could be taken, the one that is better for the peers is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import quotes, rows
from bench.model.goodput import System
from bench.rows import Row

RESULTS = Path(__file__).parents[1] / "results"
HERE = "bench/model/constants.py"
ASSUMED = f"assumed, {HERE}"
RECOVERY, STEADY, SNAPSHOT = "sigkill-50m-2+1", "50m-2", "1gib-idle"
"""The cases that constants are taken from."""

RESTART, HOT_SPARE, OURS = "restart from checkpoint", "hot-spare restart", "hpresil"
MEASURED_AS = {
    RESTART: "torchrun + DCP",
    HOT_SPARE: "NVRx in-process, hot spare, tuned",
    OURS: "hpresil",
}
"""Which contender stands for each system: of several configurations of one the best."""

DOWN_S = {RESTART: 3.83, HOT_SPARE: 2.12, OURS: 0.483}
"""From SIGKILL to the first step of the full group, seconds; 50 M parameters, 2 workers, 2 cores. hpresil:
DOWN_FILE. The others are assumed: no file has them. They are what the same workload and kill took on such a
machine before there were suites, and give way to the newest committed results."""
DOWN_FILE = "recovery-2026-11-23-forward-9a4cb78.json"
DOWN_PLACE = (quotes.OLD_FORM, "medians", "hpresil", "first_full_step_ms")
SLOWER = 0.0
"""Without a results file nobody is slower than without protection."""
SAVE_PAUSE_S = 0.0989
"""What each DCP async_save of 1 GiB, buffers used again, blocks the training thread for:
bench/results/micro-snapshot-2026-11-23-560556f.json. The synchronous save takes many times that."""
SAVED_BY = "DCP async_save, buffers used again"
DOWN_GPUS = 2
"""How many workers all of these were measured with."""

JOIN_S_PER_GPU = 265.0 / 96_000
"""Setting up communicators with stock NCCL takes about 265 s at 96,000 GPUs (M. Si et al., "Collective
Communication for 100k+ GPUs", arXiv 2510.20171; the figure as summaries of the paper have it). One point is
known, so a straight line from 0 is an assumption; they say that it grows faster, so smaller jobs pay less.
It is the same for all systems: what hpresil has against it (communicators made ahead, or shrunk and grown)
has not run on GPUs."""


@dataclass(frozen=True)
class Given:
    """A system and where its constants are from, by the name of the constant."""

    system: System
    sources: Mapping[str, str]


def newest(directory: Path, suite: str, case: str) -> tuple[str, list[Row]]:
    """Return the name of the newest results file with rows of this case, and those rows.

    Newest by the date that the file says, else by the one in its name; quick runs do not count.

    Returns:
        ("", []) if there is no such file.
    """
    found: list[tuple[str, str, list[Row]]] = []
    for path in directory.glob("*.json"):
        try:
            about, taken = rows.read(path)
        except ValueError:
            continue  # results of an older form
        mine = [one for one in taken if (one.suite, one.case) == (suite, case)]
        if mine and not about.get("quick"):
            date = re.search(r"\d{4}-\d\d-\d\d", path.name)
            found.append((str(about.get("date") or (date[0] if date else "")), path.name, mine))
    _, name, mine = max(found, default=("", "", []), key=lambda one: one[:2])
    return name, mine


def systems(directory: Path = RESULTS) -> list[Given]:
    """Return the systems that are compared, the one that the others are compared with first."""
    recovery, steady, snapshot = (
        newest(directory, suite, case)
        for suite, case in (("recovery", RECOVERY), ("steady", STEADY), ("snapshot", SNAPSHOT))
    )
    return [_given(name, recovery, steady, snapshot) for name in MEASURED_AS]


File = tuple[str, Sequence[Row]]


def _given(name: str, recovery: File, steady: File, snapshot: File) -> Given:
    who = MEASURED_AS[name]
    down_s, down = _figure(recovery, ("recovery", RECOVERY, who, "first_full_group_step_s"), DOWN_S[name])
    to_ddp, slow = _figure(steady, ("steady", STEADY, who, "step_to_ddp"), 1.0 + SLOWER)
    pause_s, pause = _figure(snapshot, ("snapshot", SNAPSHOT, SAVED_BY, "blocked_s"), SAVE_PAUSE_S)
    system = System(
        name,
        # Faster than plain DDP on CPUs is no reason to be faster on GPUs.
        slower=max(0.0, to_ddp - 1.0),
        save_pause_s=0.0 if name == OURS else pause_s,
        down_s=down_s,
        join_s_per_gpu=JOIN_S_PER_GPU,
        down_gpus=DOWN_GPUS,
    )
    if down == HERE:
        down = DOWN_FILE if name == OURS else ASSUMED
    sources = {"down_s": down, "slower": slow, "save_pause_s": HERE if name == OURS else pause}
    return Given(system, sources | {"join_s_per_gpu": HERE})


def _figure(file: File, place: Sequence[str], otherwise: float) -> tuple[float, str]:
    """Return the median in the file and the file's name, else the constant of this module."""
    name, taken = file
    try:
        found = quotes.only(taken, place)
    except quotes.Unknown:
        return otherwise, HERE
    return (otherwise, HERE) if found.median is None else (found.median, name)
