"""Judges a run with faults: is it bit for bit the undisturbed one, and was each sample used once.

Both verdicts are made from the records alone, and the second from the data order as a pure function,
so neither trusts what the run says about itself. Torch is imported only when a data order is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hpresil.base.errors import DataError
from hpresil.telemetry.record import compare, read


@dataclass(frozen=True)
class Verdict:
    """Whether something holds, and the reason in one line."""

    holds: bool
    why: str


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What fixes the data order of a job."""

    samples: int
    slots: int
    microbatches: int
    microbatch_size: int
    seed: int

    def digest(self, step: int) -> str:
        """Return the digest of the samples of ``step``, from the data order."""
        from hpresil.data.source import digest, expected_ids

        return digest(
            [
                expected_ids(
                    self.samples,
                    step=step,
                    slot=slot,
                    slots=self.slots,
                    microbatches=self.microbatches,
                    microbatch_size=self.microbatch_size,
                    seed=self.seed,
                )
                for slot in range(self.slots)
            ]
        )


def bit_identical(record: Path, undisturbed: Path) -> Verdict:
    """Return whether two records hold the same steps with the same bits."""
    try:
        difference = compare(record, undisturbed)
        lines = list(read(record))
    except DataError as error:
        return Verdict(False, str(error))
    if difference is not None:
        return Verdict(False, str(difference))
    states = sum(bool(line.state) for line in lines)
    return Verdict(
        True,
        f"{len(lines)} steps have equal loss, gradient norm and samples, and {states} digests of all state "
        "are equal",
    )


def exactly_once(record: Path, batches: Batches, *, steps: int) -> Verdict:
    """Return whether the record holds the steps 0 to ``steps - 1``, each once, with its own samples."""
    try:
        lines = list(read(record))
    except DataError as error:
        return Verdict(False, str(error))
    if [line.step for line in lines] != list(range(steps)):
        return Verdict(False, f"the record holds {len(lines)} steps instead of 0 to {steps - 1}")
    for line in lines:
        if line.samples != batches.digest(line.step):
            return Verdict(False, f"step {line.step} did not consume the samples of the data order")
    consumed = steps * batches.slots * batches.microbatches * batches.microbatch_size
    return Verdict(True, f"{consumed} samples are the first {consumed} of the data order")
