"""How agents reach each other, and a device holder to try (`device_holders`)."""

from __future__ import annotations

import os

import pytest

from device_holders import holder, inside, path
from hpresil.launch import ways

__all__ = ["holder", "inside", "path", "way"]


@pytest.fixture(params=["memory", "network"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How nodes reach each other; over the network, each thinks that it is alone on its machine."""
    if request.param == "network":
        monkeypatch.setattr(ways, "this_machine", lambda: os.urandom(8).hex())
    return str(request.param)
