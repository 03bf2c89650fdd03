"""Creates the virtual environment of the Makefile: python3 make_venv.py DIR.

A bare Debian lacks two things that only root can install: pip for `venv` (package python3-venv) and
Python's headers (python3-dev). Both are then fetched into the environment itself, so that any user
can build: pip's own wheel, pinned by its checksum, and the headers from Debian's signed package index.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import urllib.request
import venv
from importlib.util import find_spec
from pathlib import Path

PIP = "pip-26.3-py3-none-any.whl"
PIP_URL = f"https://files.pythonhosted.org/packages/07/25/ee8c38ae72d66b844ce8eb9711ba905dba21ca1a8a0c960057c41cd23337/{PIP}"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
DEADLINE_S = 300


def install_pip(environment: Path) -> None:
    """Let pip's wheel install itself into the environment."""
    with tempfile.TemporaryDirectory() as folder:
        wheel = Path(folder) / PIP
        with urllib.request.urlopen(PIP_URL, timeout=60) as answer:
            wheel.write_bytes(answer.read())
        found = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if found != PIP_SHA256:
            sys.exit(f"{PIP_URL} has checksum {found}, expected {PIP_SHA256}; nothing was installed")
        command = [environment / "bin" / "python", wheel / "pip", "install", "--quiet", "--no-index", wheel]
        subprocess.run(command, check=True, timeout=DEADLINE_S)


def install_headers(environment: Path, missing: Path) -> None:
    """Unpack Debian's package of this Python's headers to DIR/headers, where CMake looks for it."""
    advice = f"{missing} is missing: install this Python's headers (Debian: apt install python3-dev)"
    if shutil.which("apt-get") is None or not str(missing).startswith("/usr/include/"):
        sys.exit(advice)
    package = f"libpython{sys.version_info.major}.{sys.version_info.minor}-dev"
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        for needed in ("lists/partial", "cache/archives/partial"):
            (state / needed).mkdir(parents=True)
        options = ["-qq", "-o", f"Dir::State::lists={state}/lists", "-o", f"Dir::Cache={state}/cache"]
        try:
            for verb in (["update"], ["download", package]):
                subprocess.run(["apt-get", *options, *verb], cwd=state, check=True, timeout=DEADLINE_S)
            (deb,) = state.glob("*.deb")
            subprocess.run(["dpkg-deb", "-x", deb, environment / "headers"], check=True, timeout=DEADLINE_S)
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            sys.exit(f"{advice}; fetching the package {package} failed: {error}")


def main() -> None:
    """Create the environment named by the first argument, whole or not at all."""
    if sys.hexversion < 0x030B0000:
        found = sys.version.split()[0]
        sys.exit(f"hpresil needs Python 3.11 or newer, this is {found}: make PYTHON=/path/to/python3.11")
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        sys.exit("there is no C++ compiler: install one (Debian: apt install g++)")
    environment = Path(sys.argv[1])
    bundled = find_spec("ensurepip")
    own_pip = bundled is not None and bundled.origin is not None
    try:
        venv.create(environment, with_pip=own_pip, symlinks=True, clear=True)
        header = Path(sysconfig.get_path("include")) / "Python.h"
        if not header.exists():
            install_headers(environment, header)
        if not own_pip:
            install_pip(environment)
    except BaseException:
        shutil.rmtree(environment, ignore_errors=True)
        raise


main()
