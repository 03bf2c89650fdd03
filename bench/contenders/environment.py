"""Virtual environments of the contenders, made when they are first needed and kept.

Each is named after the digest of its requirements and this interpreter, so a changed file makes a new one.
Nothing of the project is in it. What all of them need (BASE) is installed once and seen by the others, which
would otherwise unpack and compile the same torch each for itself; a version of their own goes before it.
HPRESIL_BENCH_CACHE says where they are (default: ~/.cache/hpresil-bench). One that cannot be
made is not tried again by this process, however many cases need it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from bench.contenders.scratch import meaningful

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BASE = "torch.txt"
UNPACK = "#unpack "
LONGEST_S = 900.0
PINNED = re.compile(r"(?:#unpack )?([A-Za-z0-9][A-Za-z0-9._-]*)==")
_used: dict[str, Path] = {}
"""The environments that this process has asked for, by their requirements."""
_cannot: dict[Path, str] = {}
"""Those that could not be made, and why."""


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
    if place in _cannot:
        raise Unavailable(_cannot[place])
    if not (place / "complete").exists():
        shutil.rmtree(place, ignore_errors=True)
        try:
            _make(place, HERE / requirements, text)
        except (OSError, ValueError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
            _cannot[place] = f"{requirements} cannot be installed: {_why(error)}"
            raise Unavailable(_cannot[place]) from error
    _used[requirements] = place
    return place / "bin" / "python"


def versions() -> dict[str, dict[str, str]]:
    """Return what the environments hold that this process has used: the packages pinned at the top of their
    files, above the first blank line.
    """
    found = {}
    for requirements, place in sorted(_used.items()):
        shared = _used.get(BASE, place)
        paths = [str(path) for each in (shared, place) for path in each.glob("lib/python*/site-packages")]
        there = {_plain(one.name): one.version for one in metadata.distributions(path=paths)}
        lines = (HERE / requirements).read_text().split("\n\n")[0].splitlines()
        pinned = [_plain(match[1]) for line in lines if (match := PINNED.match(line))]
        found[Path(requirements).stem] = {name: there[name] for name in pinned if name in there}
    return found


def _plain(name: str) -> str:
    """Return a package's name as all of its spellings have it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _why(error: Exception) -> str:
    """Return the last line with a meaning of what the installer said."""
    said = getattr(error, "stderr", None) or b""
    text = said.decode(errors="replace") if isinstance(said, bytes) else str(said)
    return meaningful(text) or str(error).splitlines()[0]


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
