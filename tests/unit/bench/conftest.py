"""Runs of a test have their directories, and their logs if they fail, in a folder of the test."""

from __future__ import annotations

import tempfile

import pytest
from bench.contenders import scratch


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Return the folder where runs have their directories; ``kept`` beside it is for those that fail."""
    runs = tmp_path / "runs"
    runs.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(runs))
    monkeypatch.setattr(scratch, "failed", tmp_path / "kept")
    yield runs
    assert list(runs.iterdir()) == []
