"""A resilience runtime for PyTorch training: faults and resizes do not show in the loss curve.

    run = hpresil.init()
    run.track(model=model, optimizer=optimizer)
    for step in run.steps(10_000):
        with step:
            for batch in step.microbatches(data):
                step.backward(loss_fn(model(batch.inputs), batch.targets))
            step.apply(optimizer, max_norm=1.0)
        run.log(loss=step.loss)

Names are looked up when they are first used: importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpresil import snapshot as snapshot
    from hpresil.base.config import Config as Config
    from hpresil.base.errors import (
        ConfigError as ConfigError,
        DataError as DataError,
        HpresilError as HpresilError,
        Interrupted as Interrupted,
        JobStopped as JobStopped,
        NonFiniteLoss as NonFiniteLoss,
        StateLost as StateLost,
        UsageError as UsageError,
    )
    from hpresil.data.source import Batch as Batch
    from hpresil.data.tokens import TokenDataset as TokenDataset
    from hpresil.runtime.run import Run as Run, init as init
    from hpresil.runtime.step import Step as Step

_WHERE = {
    "Batch": "data.source",
    "Config": "base.config",
    "ConfigError": "base.errors",
    "DataError": "base.errors",
    "HpresilError": "base.errors",
    "Interrupted": "base.errors",
    "JobStopped": "base.errors",
    "NonFiniteLoss": "base.errors",
    "Run": "runtime.run",
    "StateLost": "base.errors",
    "Step": "runtime.step",
    "TokenDataset": "data.tokens",
    "UsageError": "base.errors",
    "init": "runtime.run",
}
_PACKAGES = ("snapshot",)
"""Parts that are of use alone."""

__all__ = sorted([*_WHERE, *_PACKAGES])
__version__: str  # where the other modules find it too: base.version


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    if name == "__version__":
        return import_module("hpresil.base.version").VERSION
    if name in _PACKAGES:
        return import_module(f"hpresil.{name}")
    if name not in _WHERE:
        raise AttributeError(f"module 'hpresil' has no attribute {name!r}; it has: {', '.join(__all__)}")
    return getattr(import_module(f"hpresil.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    """List the public names."""
    return [*__all__, "__version__"]
