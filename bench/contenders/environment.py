"""Virtual environments of the contenders, made when they are first needed and kept.

Each is named after the digest of its requirements and this interpreter, so a changed file makes a new one.
Nothing of the project is in it. What all of them need (BASE) is installed once and seen by the others, which
would otherwise unpack and compile the same torch each for itself; a version of their own goes before it.
HPRESIL_BENCH_CACHE says where they are (default: ~/.cache/hpresil-bench).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BASE = "torch.txt"
UNPACK = "#unpack "
LONGEST_S = 900.0


class Unavailable(RuntimeError):
    """The environment cannot be made here; the message says why."""


def python_of(requirements: str) -> Path:
    """Return the interpreter of a contender's environment, making that if it is not there.

    Args:
        requirements: A file beside this one; "": the environment of the project.

    Raises:
        Unavailable: Something cannot be downloaded or installed.
    """
    if not requirements:
        return Path(sys.executable)
    text, base = (HERE / requirements).read_text(), (HERE / BASE).read_text()
    digest = hashlib.blake2b(f"{text}\0{base}\0{sys.version}".encode(), digest_size=8).hexdigest()
    place = _cache() / f"{Path(requirements).stem}-{digest}"
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        try:
            _make(place, HERE / requirements, text)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            raise Unavailable(f"{requirements} cannot be installed: {said.strip()[-300:]}") from error
    return place / "bin" / "python"


def _cache() -> Path:
    chosen = os.environ.get("HPRESIL_BENCH_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "hpresil-bench"


def _make(place: Path, requirements: Path, text: str) -> None:
    python = place / "bin" / "python"
    base = _packages(python_of(BASE)) if requirements.name != BASE else None
    _run(sys.executable, "-m", "venv", "--without-pip", place)
    if base is None:
        _run(sys.executable, ROOT / "scripts" / "install_torch.py", requirements, installs_for=python)
    else:
        (_packages(python) / "base.pth").write_text(f"{base}\n")
    _run(sys.executable, "-m", "pip", "install", "--quiet", "-r", requirements, installs_for=python)
    for line in text.splitlines():
        if line.startswith(UNPACK):
            _unpack(python, line.removeprefix(UNPACK).split())
    (place / "complete").touch()


def _packages(python: Path) -> Path:
    """Return where an environment's packages are."""
    (packages,) = python.parents[1].glob("lib/python*/site-packages")
    return packages


def _unpack(python: Path, arguments: list[str]) -> None:
    """Put the files of a wheel for other machines where this interpreter finds them."""
    with tempfile.TemporaryDirectory() as folder:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        _run(*download, "-d", folder, *arguments, installs_for=python)
        (wheel,) = Path(folder).glob("*.whl")
        zipfile.ZipFile(wheel).extractall(_packages(python))


def _run(*command: str | Path, installs_for: Path | None = None) -> None:
    """Run a command; this environment's pip, which is in it, acts on that of ``installs_for`` then."""
    own = os.environ | ({"PIP_PYTHON": str(installs_for)} if installs_for else {})
    words = list(map(str, command))
    subprocess.run(words, check=True, capture_output=True, text=True, timeout=LONGEST_S, env=own)
