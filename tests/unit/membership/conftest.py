"""Makes `coordinator_story`, which stands beside the tests, importable; checks every story told."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _stories_replay() -> Iterator[None]:
    from coordinator_story import TOLD

    TOLD.clear()
    yield
    for story in TOLD:
        story.check_replay()
