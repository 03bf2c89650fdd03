"""Snapshots of a training script without the rest of hpresil, under plain torchrun for instance.

    snapshots = hpresil.snapshot.Snapshots({"model": model, "optimizer": optimizer})
    begin = snapshots.restore() or 0              # the newest version that all ranks have
    for step in range(begin, steps):
        loss_of(step).backward()
        optimizer.step()                          # waits for what is not copied yet
        optimizer.zero_grad()
        snapshots.begin(step + 1)                 # returns at once
    snapshots.close(remove=True)

Parameters and optimizer state do not change during forward and backward. So `begin` only notes where
everything is, threads of low priority copy, and the next ``optimizer.step`` waits for what is left, helping.
What may change in forward (buffers of modules) or does not lie in host memory in one piece is copied in
`begin`.

Not guaranteed: that a change between `begin` and `wait` other than through torch is noticed (NumPy,
``.data``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from hpresil import native
from hpresil.base.errors import ConfigError, DeadlineExceeded, StateLost, UsageError
from hpresil.snapshot import frame, layout, place
from hpresil.snapshot.arrays import Arrays, is_array
from hpresil.snapshot.frames import Fillable, FrameSet
from hpresil.snapshot.memory import is_plain, set_seal
from hpresil.snapshot.state import Entry, State, host_bytes
from hpresil.snapshot.tracked import Tracked

WAIT_S = 120.0
EARLY = ("buffers", "rest")  # what forward may change


class Snapshots:
    """Versions of some objects in memory that outlives this process, taken while it computes.

    Args:
        objects: By name: modules, optimizers and whatever has ``state_dict`` and ``load_state_dict``; or
            arrays (torch, NumPy, CuPy, DLPack, buffers), and then nothing else.
        directory: Where the frames are files. Default: under torchrun a directory in ``/dev/shm`` that goes
            away with its agent (see `place`), else none: memory that goes away with this process.
        fds: Memory files that another process holds, instead of a directory; at least two.
        frames: How many versions are held at most, one of which may be incomplete. Default: 2, with several
            ranks 3, because they are up to one version apart when they die.
        threads: How many threads copy in the background (default: half the cores, at most 4); 0: none, `wait`
            does.
        share: How much of a core each of them may use while nobody waits, above 0 and up to 1.

    Thread rule: one thread. Not after a fork.

    Raises:
        ConfigError: Something cannot be captured and restored exactly, or a setting makes no sense.
        DeadlineExceeded: Another live process uses the same frames.
    """

    def __init__(
        self,
        objects: Mapping[str, object],
        *,
        directory: str | Path | None = None,
        fds: Sequence[int] = (),
        frames: int | None = None,
        threads: int | None = None,
        share: float = 1.0,
    ) -> None:
        if not 0 < share <= 1:
            raise ConfigError(f"share={share} of a core is not above 0 and up to 1")
        if fds and directory is not None:
            raise ConfigError("frames are behind descriptors or in a directory, not both; give one of them")
        self._source = _source_of(objects)
        self._rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        count = frames if frames is not None else len(fds) or (2 if world == 1 else 3)
        where = Path(directory) if directory is not None else None
        self._files = None if fds else place.files(where, self._rank, count)
        if self._files is not None:
            fds = self._files.fds
        self._threads = threads if threads is not None else max(1, min(4, (os.cpu_count() or 2) // 2))
        self._frames = FrameSet(len(fds) or count, fds, threads=max(1, self._threads))
        self._frames.ready(self._frame_bytes(layout.plan(self._source.capture())))
        self._copier = native.Copier(self._threads, share)
        self._taking: _Taking | None = None
        self._pid: int | None = os.getpid()
        self._hooks = [
            thing.register_step_pre_hook(lambda *_: self.wait())
            for thing in objects.values()
            if isinstance(thing, Optimizer)
        ]

    def begin(self, version: int) -> None:
        """Begin to copy the state as it is now; it must not change until `wait` has returned.

        A tracked optimizer waits by itself before its step. A snapshot that is still being taken is waited
        for.

        Raises:
            UsageError: The state changed before the last snapshot was complete.
            TransferFailed: There is not enough memory.
        """
        self._check()
        self.wait()
        if not 0 <= version < 1 << 63:
            raise UsageError(f"a version is a number from 0 on, not {version}")
        state = self._source.capture()
        plan = layout.plan(state)
        target = self._frames.fill(self._frame_bytes(plan))
        taking = _Taking(version, target, state, plan)
        self._copier.begin(target.mapping, taking.header, plan.manifest, [0] * len(plan.rows), taking.sources)
        self._taking = taking

    def wait(self) -> None:
        """Return when the snapshot that was begun is sealed, helping to copy; at once without one.

        Raises:
            UsageError: A tensor was changed since `begin`; the snapshot is thrown away.
            DeadlineExceeded: The copying threads do not come to an end.
        """
        self._check()
        if self._taking is None:
            return
        over, sealed, _, _ = self._copier.wait(WAIT_S)
        if not over:
            raise DeadlineExceeded(f"version {self._taking.version} was not copied within {WAIT_S:g} s")
        taking, self._taking = self._taking, None
        if changed := taking.changed():
            with memoryview(taking.target.mapping) as memory:
                set_seal(memory, 0)
            raise UsageError(
                f"{changed} was changed while version {taking.version} was being copied; call wait() between "
                "begin() and whatever changes parameters or optimizer state"
            )
        if sealed:
            taking.target.sealed(taking.version)

    def versions(self) -> list[int]:
        """Return the versions that this process could restore, newest first; one that is being copied is
        none."""
        self._check()
        return self._frames.versions()

    def restore(self, version: int | None = None) -> int | None:
        """Set the objects to a version, every byte checked; collective if torch.distributed is initialised.

        Args:
            version: Which; default: the newest that all ranks have.

        Returns:
            The version, None if no rank has any.

        Raises:
            StateLost: There are versions, but none that all ranks have, or not the one asked for.
            Refused: It does not fit the objects; nothing was changed.
            StateTorn: It is damaged; the state here is worth nothing now. Restore an older one of `versions`.
        """
        self.wait()
        if version is None:
            version = _common(self.versions())
        if version is None:
            return None
        if version not in self.versions():
            raise StateLost(f"version {version} is not held here; there are: {self.versions() or 'none'}")
        fd = self._frames.fd_of(version)
        frame.restore(fd, self._source, version=version, threads=max(1, self._threads))
        return version

    def close(self, *, remove: bool = False) -> None:
        """Complete the snapshot that was begun and let the frames go.

        Args:
            remove: Also remove the files, if the frames are some: the job is over.
        """
        if self._pid != os.getpid():
            return
        try:
            self.wait()
        finally:
            self._pid = None
            for hook in self._hooks:
                hook.remove()
            self._copier.cancel()
            self._copier.wait(WAIT_S)
            self._frames.close()
            if self._files is not None:
                self._files.close(remove=remove)

    def __enter__(self) -> Snapshots:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; remove the files unless an exception ends the job, which then may be started again."""
        self.close(remove=kind is None)

    @staticmethod
    def _frame_bytes(plan: layout.Plan) -> int:
        return plan.frame_bytes + layout.SPARE_BYTES

    def _check(self) -> None:
        if self._pid is None:
            raise UsageError("these snapshots are closed")
        if self._pid != os.getpid():
            raise UsageError("these snapshots belong to the parent process; make others after the fork")


class _Taking:
    """One snapshot under way: what is copied where, and what must not change meanwhile."""

    def __init__(self, version: int, target: Fillable, state: State, plan: layout.Plan) -> None:
        self.version, self.target = version, target
        self.header = layout.header_of(plan, version=version).packed()
        self.sources: list[tuple[int, int, int, int]] = []
        self._keep: list[Any] = []
        self._counters: list[tuple[str, torch.Tensor, int]] = []
        for number, (entry, row) in enumerate(zip(state.tensors, plan.rows, strict=True)):
            if row.nbytes:
                lying = self._as_it_lies(entry)
                self._keep.append(lying)
                self.sources.append((lying.data_ptr(), row.offset, row.nbytes, number))

    def _as_it_lies(self, entry: Entry) -> torch.Tensor:
        """Return host memory with the contents in logical order: the tensor's own if it is so, and stays
        so."""
        tensor = entry.tensor
        if is_plain(tensor) and entry.section not in EARLY:
            if not tensor.is_inference():
                self._counters.append((entry.name, tensor, tensor._version))
            return tensor
        lying = host_bytes(tensor)
        return lying.clone() if lying.data_ptr() == tensor.data_ptr() else lying

    def changed(self) -> str:
        """Return the name of a tensor that torch has written to since, empty if there is none."""
        return next((name for name, tensor, before in self._counters if tensor._version != before), "")


def _source_of(objects: Mapping[str, object]) -> Tracked | Arrays:
    if not objects:
        raise ConfigError("there is nothing to take snapshots of; give objects by name")
    arrays = [name for name, thing in objects.items() if is_array(thing)]
    if len(arrays) == len(objects):
        return Arrays(objects)
    if arrays:
        raise ConfigError(
            f"{arrays[0]} is an array among modules and optimizers; give arrays to snapshots of their own, "
            "or to an object with state_dict and load_state_dict"
        )
    return Tracked(dict(objects))


def _common(mine: list[int]) -> int | None:
    """Return the newest version that all ranks have, None if no rank has any."""
    held = [mine]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        held = [[] for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather_object(held, mine)
    everywhere = set(held[0]).intersection(*held)
    if not everywhere and any(held):
        raise StateLost(
            f"no version is held by every rank (by rank: {held}); load a checkpoint, or begin anew without "
            "restore()"
        )
    return max(everywhere, default=None)
