"""What the tests themselves are told through the environment is no setting of a job."""

import os

import pytest


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HPRESIL_")]:
        monkeypatch.delenv(name)
