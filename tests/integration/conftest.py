"""Jobs without faults to compare with, and jobs in the background that a failed test leaves behind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import job
from fault_jobs import SCRIPT, STEPS, lines


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    done = job.run(tmp_path_factory.mktemp("alone"), SCRIPT, "--steps", STEPS)
    assert done.status == 0, done.output
    return lines(done.record)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start jobs in the background, and end those that a failed test leaves running."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: object, nproc: int, faults: list[dict[str, Any]] | None = None) -> subprocess.Popen[str]:
        directory = tmp_path / "j"
        directory.mkdir()
        process = subprocess.Popen(
            job.arguments(directory, SCRIPT, *args, nproc=nproc),
            env=job.environment(directory, faults),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()  # the guardian ends what the agent leaves
        process.communicate(timeout=20)
