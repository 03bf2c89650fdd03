"""What a bench result says about itself: the machine, the versions, the commit; and its table."""

import datetime
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROWS = (
    ("noticed_ms", "kill → noticed"),
    ("regrouped_ms", "kill → group re-formed, decided"),
    ("sealed_ms", "kill → source has sealed the state"),
    ("restored_ms", "kill → newcomer has the state"),
    ("first_full_step_ms", "kill → first step of the full group"),
    ("floor_ms", "the least possible: a lost slot, exchange and optimizer of a healthy step"),
    ("over_step_ms", "above a healthy step (the goal: 100)"),
)


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    names = [
        line.split(":")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return {
        "cpu": names[0].strip() if names else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / (1 << 30), 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
    }


def commit(root: Path) -> str:
    """Return the commit that was measured, with a mark if the product's files differ from it."""

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, check=False)
        return ran.stdout.strip()

    changed = git("status", "--porcelain", "--", "python", "csrc")
    return (git("rev-parse", "--short=12", "HEAD") or "unknown") + (" with changes" if changed else "")


def medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of every number over ``runs``."""
    result: dict[str, Any] = {}
    for name, value in runs[0].items():
        if isinstance(value, dict):
            result[name] = medians([run[name] for run in runs])
        else:
            result[name] = round(statistics.median(run[name] for run in runs), 2)
    return result


def write(result: dict[str, Any], directory: Path, name: str) -> Path:
    """Write NAME.json and NAME.md, and return the path of the latter."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    page = directory / f"{name}.md"
    page.write_text(markdown(result))
    return page


def today() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")


def markdown(result: dict[str, Any]) -> str:
    """Return the page that shows ``result``."""
    about, setup, middle = result["machine"], result["setup"], result["medians"]
    loads = [load for run in result["runs"] for load in run["load"]]
    lines = [
        "# Recovery latency",
        "",
        f"50.4 M parameters, Adam, 604 MB of state, {setup['workers']} workers and 1 spare; SIGKILL of rank "
        f"1 at step {setup['kill_step']} ({setup['kill_at']}), {setup['resident']:g} GiB more in it.",
        f"Medians of {setup['repeats']} runs, plain DDP and hpresil taking turns.",
        "",
        f"* {result['date']}, commit {result['commit']}",
        f"* {about['cpu']}, {about['cores']} cores, {about['memory_gib']} GiB, Linux {about['kernel']}, "
        f"Python {about['python']}, torch {about['torch']}",
        f"* load average before each run: {min(loads):.1f} to {max(loads):.1f} on {about['cores']} cores; "
        f"{_quietness(loads, about['cores'])}",
        f"* command: `{result['command']}`",
        "",
        "| healthy step | DDP | hpresil | ratio |",
        "| --- | --- | --- | --- |",
    ]
    for name, text in (("step_ms", "time, ms"), ("step_cpu_ms", "processor time of rank 0, all threads, ms")):
        ours, theirs = middle["hpresil"][name], middle["ddp"][name]
        lines.append(f"| {text} | {theirs:.0f} | {ours:.0f} | {ours / theirs:.2f} |")
    lines += ["", "| recovery | ms | ordinary steps |", "| --- | --- | --- |"]
    for name, text in ROWS:
        value = middle["hpresil"][name]
        lines.append(f"| {text} | {value:.1f} | {value / middle['hpresil']['step_ms']:.2f} |")
    lines += [
        f"| steps redone | {middle['hpresil']['steps_redone']:g} | |",
        "",
        "Where a healthy step goes (rank 0):",
    ]
    for who in ("ddp", "hpresil"):
        parts = ", ".join(f"{part} {ms:.0f}" for part, ms in middle[who]["parts_ms"].items())
        lines += ["", f"* {who}, ms: {parts}"]
    lines += [
        "",
        "Each run:",
        "",
        "| run | DDP step | hpresil step | kill → first full step | above a step |",
        "| --- | --- | --- | --- | --- |",
    ]
    for number, run in enumerate(result["runs"], 1):
        ours = run["hpresil"]
        steps = f"{run['ddp']['step_ms']:.0f} | {ours['step_ms']:.0f}"
        full, over = ours["first_full_step_ms"], ours["over_step_ms"]
        lines.append(f"| {number} | {steps} | {full:.0f} | {over:.0f} |")
    return "\n".join(lines) + "\n"


def _quietness(loads: Sequence[float], cores: int) -> str:
    if max(loads) > cores / 2:
        return "**the machine was shared and busy: only the processor time can be compared, not the rest**"
    return "the machine was quiet"
