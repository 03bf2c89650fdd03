"""Installs the pinned torch into this environment: python install_torch.py CONSTRAINTS.

The default package index serves torch with CUDA, several GB; PyTorch's own index serves a CPU build
of the same version, which is enough for everything that hpresil runs without a GPU. TORCH_INDEX names
the index to use; unset, PyTorch's CPU index is used if it answers; empty, none but pip's own settings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request

CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def answers(url: str) -> bool:
    """Return whether the index can be reached within a few seconds."""
    try:
        with urllib.request.urlopen(f"{url}/torch/", timeout=10):
            return True
    except (urllib.error.URLError, OSError):
        return False


def main() -> None:
    """Install what the constraints file pins."""
    index = os.environ.get("TORCH_INDEX")
    if index is None:
        index = CPU_INDEX if answers(CPU_INDEX) else ""
        if not index:
            print(f"{CPU_INDEX} does not answer: torch comes from the configured index", flush=True)
    # A local version (2.13.0+cpu) is newer than the plain one, so pip takes the CPU build.
    extra = ["--extra-index-url", index] if index else []
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--constraint", sys.argv[1], *extra]
    sys.exit(subprocess.run([*pip, "torch"]).returncode)


main()
