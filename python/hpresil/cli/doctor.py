"""``hpresil doctor``: what was built, what this machine has, and what a world size costs.

Exit status 0: hpresil works here; 1: something it needs does not work, and the line says what was seen.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hpresil import __version__, native
from hpresil.native import machine_check

if TYPE_CHECKING:
    from rich.console import Console

PACKAGES = ("torch", "numpy", "msgspec", "rich", "safetensors")
GIB = 1 << 30


class Efficiency(NamedTuple):
    """What a step costs at one world size, in slots of time, and how much of the machines works."""

    workers: int
    slots_of_time: int
    efficiency: float


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> argparse.ArgumentParser:
    """Add the verb ``doctor``."""
    parser: argparse.ArgumentParser = subparsers.add_parser(
        "doctor",
        help="show what was built and what this machine has",
        description="Show what was built, try what hpresil needs on this machine, and tabulate what each "
        "world size costs. Exit status 1: something that is needed does not work.",
    )
    parser.add_argument("--slots", type=_slots, default=8, metavar="S", help="slots of the table (8)")
    parser.add_argument("--json", action="store_true", help="print it as one JSON document")
    return parser


def main(args: argparse.Namespace) -> int:
    """Print the findings and return the exit status."""
    checks = machine_check.run()
    found = {
        "built": {**native.built_with(), "cpu_level": native.cpu_level(), "cpu_levels": native.cpu_levels()},
        "machine": machine(),
        "versions": versions(),
        "devices": native.cuda_devices(),
        "checks": [check._asdict() for check in checks],
        "slots": args.slots,
        "slot_efficiency": [row._asdict() for row in slot_efficiency(args.slots)],
    }
    if args.json:
        print(json.dumps(found, indent=1))
    else:
        _show(found, checks, slot_efficiency(args.slots))
    return 0 if all(check.passed for check in checks) else 1


def slot_efficiency(slots: int) -> list[Efficiency]:
    """Return the cost of a step for 1 to 2 x ``slots`` workers.

    A step takes as long as the rank with the most slots, ceil(S / W) of them; the others wait.
    """
    rows = []
    for workers in range(1, 2 * slots + 1):
        time = -(-slots // workers)
        rows.append(Efficiency(workers, time, slots / (workers * time)))
    return rows


def machine() -> dict[str, object]:
    """Return what the operating system says about this machine."""
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    shared = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": int(memory["MemTotal"].split()[0]) * 1024,
        "memory_available_bytes": int(memory["MemAvailable"].split()[0]) * 1024,
        "dev_shm_bytes": shared.f_blocks * shared.f_frsize if shared else 0,
        "dev_shm_free_bytes": shared.f_bavail * shared.f_frsize if shared else 0,
        "core_pattern": Path("/proc/sys/kernel/core_pattern").read_text().strip(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and the packages hpresil stands on, without importing any."""
    found = {"hpresil": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _slots(text: str) -> int:
    slots = int(text)
    if not 1 <= slots <= 65536:
        raise argparse.ArgumentTypeError(f"{slots} is not between 1 and 65536")
    return slots


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _show(found: dict[str, object], checks: list[machine_check.Check], efficiency: list[Efficiency]) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for title in ("built", "machine", "versions"):
        _show_values(console, title, found[title])
    _show_devices(console)
    console.print("[bold]checks[/bold]")
    for check in checks:
        colour, word = ("green", "works") if check.passed else ("red", "FAILS")
        console.print(f"  [{colour}]{word}[/{colour}]  {check.name}: {check.saw}")
    _show_efficiency(console, efficiency)


def _show_devices(console: Console) -> None:
    console.print("[bold]devices[/bold]")
    devices = native.cuda_devices()
    for device in devices:
        console.print(
            f"  {device['index']}  {device['name']}, compute capability {device['capability']}, "
            f"{device['memory_bytes'] / GIB:.1f} GiB, driver for CUDA {device['driver_supports']}, "
            f"runtime {device['runtime']}"
        )
    if not devices:
        toolkit = native.built_with()["cuda"]
        why = (
            f"built with CUDA {toolkit}, but no driver or no device is here"
            if toolkit
            else "built without CUDA"
        )
        console.print(f"  none ({why})")


def _show_values(console: Console, title: str, values: object) -> None:
    assert isinstance(values, dict)
    console.print(f"[bold]{title}[/bold]")
    for name, value in values.items():
        if name.endswith("_bytes"):
            name, value = name.removesuffix("_bytes"), f"{value / GIB:.1f} GiB"
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        console.print(f"  {name.replace('_', ' '):<20}{value if value != '' else 'none'}", markup=False)


def _show_efficiency(console: Console, efficiency: list[Efficiency]) -> None:
    from rich.table import Table

    slots = efficiency[0].slots_of_time
    table = Table("workers", "slots of time a step", "efficiency", title=f"{slots} slots")
    shown = [
        row
        for row in efficiency
        if slots <= 16 or row.workers & (row.workers - 1) == 0 or row.efficiency == 1
    ]
    for row in shown:
        colour = "green" if row.efficiency > 0.99 else "yellow" if row.efficiency >= 0.75 else "red"
        table.add_row(str(row.workers), str(row.slots_of_time), f"[{colour}]{row.efficiency:.0%}[/{colour}]")
    console.print(table)
    console.print("More workers than slots only wait; choose slots >= 4 x the largest world.")
