"""Every error hpresil raises, in one tree.

    HpresilError
    ├── ConfigError          a setting or a flag is wrong
    ├── UsageError           the training script misuses the API; the message names the line
    ├── DataError            a data set is truncated, foreign or too short
    ├── NonFiniteLoss        a loss is NaN or infinite
    ├── StateLost            no live or stored copy of some state is left
    ├── Refused              this worker differs from the job it wants to join
    ├── Divergence           two workers report different results of one step
    ├── JobStopped           the job was stopped; the message says why
    ├── NativeError          the native core failed; mirrors the C++ tree
    ├── DeadlineExceeded     a wait reached its deadline
    └── Retryable            the caller may try again
        ├── GenerationChanged    a newer generation replaced the one this call belongs to
        ├── PeerLost             a process group failed: a peer died or hung, or it was interrupted
        └── TransferFailed       bytes did not arrive intact
            └── StateTorn        … and the state here is half overwritten

    Interrupted (BaseException)  leaves a step block early; caught by ``with step``

A message says who, what, at which generation or step, for how long, and what to do.
"""

from __future__ import annotations


class HpresilError(Exception):
    """Base of every error that hpresil raises on purpose."""


class ConfigError(HpresilError):
    """A setting, a flag or an environment variable has a value that cannot work."""


class UsageError(HpresilError):
    """The training script uses the API in a way that would give wrong results."""


class DataError(HpresilError):
    """A data set cannot be used: truncated, of another format, or shorter than a sequence."""


class NonFiniteLoss(HpresilError):
    """The loss of a slot is NaN or infinite; the step is not committed."""


class StateLost(HpresilError):
    """No live worker, snapshot or checkpoint holds the state that a view needs."""


class Refused(HpresilError):
    """The worker's model, settings or platform differ from those the job is pinned to."""


class Divergence(HpresilError):
    """Two reports of the same step differ, so some worker computes other bits."""


class JobStopped(HpresilError):
    """The job ends before its last step; the message gives the reason."""


class NativeError(HpresilError):
    """A call of the native core failed."""


class DeadlineExceeded(HpresilError):
    """A wait ended at its deadline; the message names what was waited for."""


class Retryable(HpresilError):
    """The operation had no effect and may be tried again."""


class GenerationChanged(Retryable):
    """A newer generation is installed; what belonged to the older one has no effect."""


class PeerLost(Retryable):
    """An operation of a process group failed; no state has changed, the next generation repeats it.

    Args:
        message: What was going on, and how it ended.
        rank: This process's rank in the group.
        generation: The group's generation.
    """

    def __init__(self, message: str, *, rank: int, generation: int) -> None:
        super().__init__(f"rank {rank} of generation {generation}: {message}")
        self.rank = rank
        self.generation = generation


class TransferFailed(Retryable):
    """A transfer ended early or its checksum does not match."""


class StateTorn(TransferFailed):
    """Bytes failed their check after part of the state was replaced.

    What this worker holds is no version any more: it must restore a whole one before it takes part.
    """


class Interrupted(BaseException):
    """Leaves a ``with step`` block early; the block catches it, user code never has to."""
