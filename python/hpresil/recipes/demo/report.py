"""The demo's result: one row for each fault, the verdicts, and both as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from hpresil.recipes.demo.verdicts import Verdict
from hpresil.telemetry.recovery import Recovery

KINDS = ("killed", "hung", "grown")
"""Every change the demo has to show: a spare takes over, the group shrinks, it grows back."""
NODE_KINDS = (*KINDS, "node lost")
"""And with several nodes, the loss of one."""


@dataclass(frozen=True, kw_only=True)
class FaultRow:
    """What one fault cost; times in milliseconds from the fault (or, for "grown", from the view)."""

    kind: str
    detect_ms: float
    regroup_ms: float
    restore_ms: float
    first_step_ms: float
    total_ms: float
    steps_redone: int


def fault_rows(found: list[Recovery], victims: Mapping[str, int]) -> list[FaultRow]:
    """Return the rows of the demo's faults that the job has recovered from, in order.

    Args:
        found: The job's recoveries.
        victims: The worker that was harmed, by kind.
    """
    harmed = {worker: kind for kind, worker in victims.items()}
    rows = []
    for recovery in found:
        # By worker: the launcher says "ended" where it fenced a dying worker before its exit status.
        kinds = [harmed[worker] for worker in recovery.workers if worker in harmed]
        times = (recovery.regroup_ms, recovery.restore_ms, recovery.first_step_ms, recovery.total_ms)
        if None in times or not (kinds or recovery.kind == "grown"):
            continue
        regroup, restore, first_step, total = (round(time or 0.0, 1) for time in times)
        rows.append(
            FaultRow(
                kind=kinds[0] if kinds else recovery.kind,
                detect_ms=round(recovery.detect_ms, 1),
                regroup_ms=regroup,
                restore_ms=restore,
                first_step_ms=first_step,
                total_ms=total,
                steps_redone=recovery.steps_redone,
            )
        )
    return rows


def missing(rows: list[FaultRow], kinds: Sequence[str] = KINDS) -> list[str]:
    """Return the kinds that have no row: a fault that did not fire, or no recovery from it."""
    return [kind for kind in kinds if kind not in {row.kind for row in rows}]


def table(rows: list[FaultRow]) -> Table:
    """Return ``rows`` for people."""
    words = {
        "killed": "killed, spare takes over",
        "hung": "hung, group shrinks",
        "grown": "group grows back",
        "node lost": "node lost",
    }
    shown = Table(
        title="What each fault cost (ms)", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    shown.add_column("fault", no_wrap=True)
    for name in ("detect", "regroup", "restore", "first step", "total", "steps redone"):
        shown.add_column(name, justify="right")
    for row in rows:
        times = (row.detect_ms, row.regroup_ms, row.restore_ms, row.first_step_ms, row.total_ms)
        shown.add_row(words.get(row.kind, row.kind), *(f"{t:,.1f}" for t in times), str(row.steps_redone))
    return shown


def as_json(verdicts: Mapping[str, Verdict], rows: list[FaultRow]) -> dict[str, Any]:
    """Return the result in the form of ``--json``."""
    return {
        "verdicts": {name: verdict.holds for name, verdict in verdicts.items()},
        "faults": [asdict(row) for row in rows],
    }


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write ``result`` to ``path``, as a whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(result, indent=2) + "\n")
    temporary.replace(path)
