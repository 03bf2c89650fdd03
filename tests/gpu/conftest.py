"""Tests that need an NVIDIA device; elsewhere each is skipped and says so."""

from __future__ import annotations

import pytest

from hpresil import native


def why_not() -> str | None:
    if not native.built_with()["cuda"]:
        return "built without CUDA"
    if not native.cuda_devices():
        return "no CUDA device here: compiled, not run"
    import torch

    return None if torch.cuda.is_available() else "this torch is built without CUDA"


@pytest.fixture(autouse=True)
def _needs_a_device() -> None:
    if why := why_not():
        pytest.skip(why)
