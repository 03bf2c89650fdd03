"""Environments of contenders: torch is installed once, and each adds what only it needs."""

from __future__ import annotations

import subprocess

import pytest
from bench.contenders import environment


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


def test_one_that_cannot_be_made_says_why_and_is_tried_again(commands, monkeypatch) -> None:
    def fails(*command, installs_for=None):
        raise subprocess.CalledProcessError(1, "pip", stderr="there is no network")

    monkeypatch.setattr(environment, "_run", fails)
    for _ in range(2):
        with pytest.raises(
            environment.Unavailable, match=r"torch\.txt cannot be installed: there is no network"
        ):
            environment.python_of("torchft.txt")
