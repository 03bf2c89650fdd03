"""Puts what bench/gpu/suite.sh ran into one JSON file, and runs one bench: `report run NAME FILE`.

The file says what ran with which status, each test's outcome, all rows, and under ``not_run`` in plain
words what could not be run, so that nothing that is missing looks like success.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from bench import rows
from bench.machine import machine

ONLY_WITHOUT = "this machine has a CUDA device"
"""Why a test is skipped here that is about machines without one."""


def run(name: str, file: Path) -> None:
    module = importlib.import_module(f"bench.gpu.{name}")
    found = list(module.rows(bool(os.environ.get("HPRESIL_QUICK"))))
    rows.write(file, found, machine())
    print(rows.table(found), flush=True)


def steps(folder: Path) -> list[dict[str, Any]]:
    found = []
    for line in (folder / "steps.tsv").read_text().splitlines():
        name, status, seconds = line.split("\t")
        found.append({"step": name, "status": int(status), "seconds": int(seconds)})
    return found


def tests(folder: Path) -> dict[str, list[str]]:
    """Return the names of the tests by outcome; a skipped one with its reason."""
    outcomes: dict[str, list[str]] = {"passed": [], "failed": [], "skipped": []}
    for path in sorted(folder.glob("tests-*.xml")):
        for case in ElementTree.parse(path).iter("testcase"):
            name = f"{case.get('classname')}::{case.get('name')}"
            skipped = case.find("skipped")
            if skipped is not None:
                outcomes["skipped"].append(f"{name}: {skipped.get('message')}")
            elif case.find("failure") is not None or case.find("error") is not None:
                outcomes["failed"].append(name)
            else:
                outcomes["passed"].append(name)
    return outcomes


def summary(folder: Path) -> dict[str, Any]:
    ran, outcomes = steps(folder), tests(folder)
    taken = [
        row for path in sorted(folder.glob("bench-*.json")) for row in json.loads(path.read_text())["rows"]
    ]
    missing = [f"step {one['step']} ended with status {one['status']}" for one in ran if one["status"]]
    missing += [f"test {name}" for name in outcomes["skipped"] if ONLY_WITHOUT not in name]
    missing += [
        f"figure {row['case']}, {row['contender']}: {row['why_missing']}"
        for row in taken
        if row["why_missing"]
    ]
    if not any(outcomes.values()):
        missing.append("no test ran at all")
    about = (folder / "machine.txt").read_text().splitlines()
    return {"machine": about, "steps": ran, "tests": outcomes, "rows": taken, "not_run": missing}


def main() -> None:
    if sys.argv[1] == "run":
        run(sys.argv[2], Path(sys.argv[3]))
        return
    folder, file = Path(sys.argv[1]), Path(sys.argv[2])
    found = summary(folder)
    file.write_text(json.dumps(found, indent=1) + "\n")
    outcomes = found["tests"]
    print(", ".join(f"{len(names)} {outcome}" for outcome, names in outcomes.items()))
    print("\n".join(f"NOT RUN: {what}" for what in found["not_run"]) or "everything ran")
    sys.exit(1 if found["not_run"] or outcomes["failed"] else 0)


if __name__ == "__main__":
    main()
