"""Virtual environments of the contenders, made when they are first needed and kept.

Each is named after the digest of its requirements and this interpreter, so a changed file makes a new one.
Nothing of the project is in it. HPRESIL_BENCH_CACHE says where they are (default: ~/.cache/hpresil-bench).
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
    text = (HERE / requirements).read_text()
    digest = hashlib.blake2b(f"{text}\0{sys.version}".encode(), digest_size=8).hexdigest()
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
    _run(sys.executable, "-m", "venv", place)
    _run(python, ROOT / "scripts" / "install_torch.py", requirements)
    _run(python, "-m", "pip", "install", "--quiet", "-r", requirements)
    for line in text.splitlines():
        if line.startswith(UNPACK):
            _unpack(python, line.removeprefix(UNPACK).split())
    (place / "complete").touch()


def _unpack(python: Path, arguments: list[str]) -> None:
    """Put the files of a wheel for other machines where this interpreter finds them."""
    with tempfile.TemporaryDirectory() as folder:
        _run(
            python,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--only-binary=:all:",
            "-d",
            folder,
            *arguments,
        )
        (wheel,) = Path(folder).glob("*.whl")
        (packages,) = python.parents[1].glob("lib/python*/site-packages")
        zipfile.ZipFile(wheel).extractall(packages)


def _run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True, timeout=LONGEST_S)
