"""Environments of contenders: torch is installed once, and what cannot be made is not tried by every case."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from bench.contenders import environment

SAID = """WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError'
ERROR: Could not find a version that satisfies the requirement torchft==0.2.0
ERROR: No matching distribution found for torchft==0.2.0
[notice] A new release of pip is available
"""


@pytest.fixture(autouse=True)
def fresh(tmp_path, monkeypatch):
    monkeypatch.setenv("HPRESIL_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(environment, "_cannot", {})
    monkeypatch.setattr(environment, "_used", {})


def fails_with(monkeypatch, error):
    tried = []

    def run(*command, installs_for=None):
        tried.append(command)
        raise error

    monkeypatch.setattr(environment, "_run", run)
    return tried


def hold(packages: Path, name: str, version: str) -> None:
    """Let an environment's packages have one of that name."""
    info = packages / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def installs(monkeypatch, **versions):
    def make(place, requirements, text):
        for name, version in versions.items():
            hold(place / "lib" / "python3.11" / "site-packages", name, version)
        (place / "complete").touch()

    monkeypatch.setattr(environment, "_make", make)


def test_why_it_cannot_be_installed_is_the_last_line_of_the_installer_that_says_it(monkeypatch):
    fails_with(monkeypatch, subprocess.CalledProcessError(1, ["pip"], stderr=SAID))
    with pytest.raises(environment.Unavailable) as failure:
        environment.python_of("torch.txt")
    assert str(failure.value) == (
        "torch.txt cannot be installed: ERROR: No matching distribution found for torchft==0.2.0"
    )


def test_one_that_took_too_long_says_so_although_its_words_are_bytes(monkeypatch):
    fails_with(monkeypatch, subprocess.TimeoutExpired(["pip"], 900, stderr=b"ERROR: the index is away\n"))
    with pytest.raises(environment.Unavailable, match="ERROR: the index is away"):
        environment.python_of("torchft.txt")


def test_one_that_failed_is_not_tried_again(monkeypatch):
    tried = fails_with(monkeypatch, OSError("no space left on device"))
    for _ in range(3):
        with pytest.raises(environment.Unavailable, match=r"torch\.txt cannot be installed: no space left"):
            environment.python_of("torch.txt")
    assert len(tried) == 1


def test_one_that_is_there_is_used_again_and_says_what_it_holds(monkeypatch, tmp_path):
    installs(monkeypatch, torch="2.13.0", torchft="0.2.0", sympy="1.14.0")
    python = environment.python_of("torchft.txt")
    fails_with(monkeypatch, AssertionError("it is made twice"))
    assert environment.python_of("torchft.txt") == python
    assert python.is_relative_to(tmp_path)
    assert environment.versions() == {"torchft": {"torch": "2.13.0", "torchft": "0.2.0"}}


def test_what_stands_below_the_top_of_the_file_is_in_the_environment_and_not_named(monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "HERE", tmp_path)
    for name in ("both.txt", environment.BASE):
        (tmp_path / name).write_text("# Top.\ntorch==2.13.0\n\n# What this pulls in.\nsympy==1.14.0\n")
    installs(monkeypatch, torch="2.13.0", sympy="1.14.0")
    environment.python_of("both.txt")
    assert environment.versions() == {"both": {"torch": "2.13.0"}}


def test_a_package_that_is_only_unpacked_is_named_too(monkeypatch):
    installs(monkeypatch, torch="2.13.0", nvidia_resiliency_ext="0.7.0")
    environment.python_of("nvrx_inprocess.txt")
    assert environment.versions()["nvrx_inprocess"]["nvidia-resiliency-ext"] == "0.7.0"


def test_the_environment_of_the_project_is_this_one():
    assert environment.python_of("") == Path(sys.executable)
    assert environment.versions() == {}


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Run nothing, make what `venv` would, and return what was to be run and for whom."""
    ran = []

    def run(*command, installs_for=None):
        words = list(map(str, command))
        ran.append((words[1:], installs_for))
        if "venv" in words:
            (command[-1] / "lib" / "python3.11" / "site-packages").mkdir(parents=True)

    monkeypatch.setenv("HPRESIL_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(environment, "_run", run)
    return ran


def test_what_all_need_is_installed_once_and_seen_by_the_others(commands) -> None:
    pythons = {name: environment.python_of(f"{name}.txt") for name in ("torchft", "dlrover", "torch")}
    assert len({*pythons.values()}) == 3
    torch = [python for words, python in commands if words[0].endswith("install_torch.py")]
    assert torch == [pythons["torch"]]
    installed = [python for words, python in commands if words[:3] == ["-m", "pip", "install"]]
    assert installed == [pythons["torch"], pythons["torchft"], pythons["dlrover"]]
    base = environment._packages(pythons["torch"])
    for name in ("torchft", "dlrover"):
        assert (environment._packages(pythons[name]) / "base.pth").read_text() == f"{base}\n"
    assert not (base / "base.pth").exists()


def test_one_that_is_there_is_not_made_again(commands) -> None:
    first = environment.python_of("torchft.txt")
    commands.clear()
    assert environment.python_of("torchft.txt") == first
    assert commands == []


def test_what_all_share_is_named_with_each(commands) -> None:
    for requirements, name, version in (
        ("torchft.txt", "torchft", "0.2.0"),
        (environment.BASE, "torch", "2.13.0"),
    ):
        hold(environment._packages(environment.python_of(requirements)), name, version)
    assert environment.versions()["torchft"] == {"torch": "2.13.0", "torchft": "0.2.0"}
