"""Installs the pinned torch into this environment: python install_torch.py CONSTRAINTS.

The default package index serves torch with CUDA, several GB; PyTorch's own index serves a CPU build
of the same version, which is enough for everything that hpresil runs without a GPU. TORCH_INDEX names
an index to add; unset, PyTorch's CPU index is added unless pip's own settings lead to a CPU build
anyway; empty, none but those settings.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PIP = [sys.executable, "-m", "pip", "install", "--quiet"]


def offers_cpu_build(constraints: str) -> bool:
    """Return whether pip, as it is configured, would take a CPU build by itself."""
    plan = subprocess.run(
        [*PIP, "--dry-run", "--no-deps", "--ignore-installed", "--report", "-", "-c", constraints, "torch"],
        capture_output=True,
        text=True,
    )
    if plan.returncode:
        return False
    return any(item["metadata"]["version"].endswith("+cpu") for item in json.loads(plan.stdout)["install"])


def main() -> None:
    """Install what the constraints file pins."""
    constraints = sys.argv[1]
    index = os.environ.get("TORCH_INDEX")
    if index is None:
        index = "" if offers_cpu_build(constraints) else CPU_INDEX
    # A local version (2.13.0+cpu) is newer than the plain one, so pip takes the CPU build.
    extra = ["--extra-index-url", index] if index else []
    sys.exit(subprocess.run([*PIP, "--constraint", constraints, *extra, "torch"]).returncode)


main()
