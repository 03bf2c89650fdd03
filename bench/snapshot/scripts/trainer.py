"""A training process that takes snapshots by one method, and marks what they cost it.

    python take_NAME.py idle|busy [OPTION]

*idle*: BENCH_SIZE (``1gib``, ``16mib``) in 64 fp32 tensors that nobody computes with. BENCH_STEPS times the
state may change PAUSE_S after the snapshot was begun, as it does behind a forward and backward pass, and as
often at once. *busy*: the workload of that size, BENCH_STEPS pairs of blocks of steps, one without snapshots
and one with a snapshot after every step; each pair says how many cores it had.

The first of each does not count. In the end the state is changed as soon as the method allows it, and what
the snapshot then holds is compared with what was there when it was begun: a method whose snapshots are torn
is as good as one that cannot run, which says why by the mark ``cannot``.

Needs torch and nothing else, so it runs in every contender's environment.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch
from workload import Marks, Workload, loss_of

TENSORS = 64
PAUSE_S = 0.5
STEPS_OF_A_BLOCK = 5
UNITS = {"mib": 1 << 20, "gib": 1 << 30}
Tensors = dict[str, torch.Tensor]


class Torn(Exception):
    """A snapshot does not hold what was there when it was begun."""


class Method:
    """One way to take snapshots. Versions count up; only the newest one is ever wanted back."""

    def save(self, version: int) -> None:
        """Begin a snapshot; complete the one before first, if the method needs that."""

    def before_change(self) -> None:
        """Return when the state may change."""

    def finish(self) -> None:
        """Return when the snapshot is complete."""

    def loaded(self) -> Tensors | None:
        """Return what the newest snapshot holds, None if the method takes none."""
        return None

    def close(self) -> None:
        """Let go of everything."""


@dataclass(frozen=True)
class State:
    """What snapshots are taken of.

    Attributes:
        objects: The same as modules and optimizers, where there are some.
        place: A directory for files, each named after its version; old ones are removed outside of what is
            timed.
        tensors: Returns all of them by name.
    """

    objects: dict[str, object]
    place: Path
    tensors: Callable[[], Tensors]

    def remove_before(self, version: int) -> None:
        """Remove the files of older versions."""
        for path in self.place.iterdir():
            if path.name.isdecimal() and int(path.name) < version:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def main(make: Callable[[State, str], Method]) -> None:
    """Measure the method that ``make`` returns for a state and the option."""
    marks = Marks(Path(os.environ["BENCH_OUT"]))
    case, option = sys.argv[1], "".join(sys.argv[2:3])
    try:
        {"idle": idle, "busy": busy}[case](lambda state: make(state, option), marks)
    except Torn as error:
        marks.add("cannot", why=str(error))
    except Exception as error:
        traceback.print_exc()
        said = str(error).strip() or "it gave no reason"
        marks.add("cannot", why=f"{type(error).__name__}: {said.splitlines()[0]}")


def idle(make: Callable[[State], Method], marks: Marks) -> None:
    tensors = of_size(os.environ["BENCH_SIZE"])
    state = State(dict(tensors), directory(), lambda: tensors)
    version = 0
    with closing(make(state)) as method:
        for turn in range(1 + int(os.environ["BENCH_STEPS"])):
            for when, pause_s in (("later", PAUSE_S), ("at once", 0.0)):
                version += 1
                blocked_s, done_s = one(method, version, pause_s)
                state.remove_before(version)
                if turn:
                    marks.add("save", when=when, blocked_s=blocked_s, done_s=done_s)
        check(state, method, version + 1)
    marks.add("checked")


def of_size(size: str) -> Tensors:
    nbytes = int(size[:-3]) * UNITS[size[-3:]]
    return {f"p{number}": torch.full((nbytes // TENSORS // 4,), float(number)) for number in range(TENSORS)}


def one(method: Method, version: int, pause_s: float) -> tuple[float, float]:
    """Take a snapshot; return how long the training thread was blocked, and when it was complete."""
    begun = time.perf_counter()
    method.save(version)
    saved = time.perf_counter()
    time.sleep(pause_s)
    resumed = time.perf_counter()
    method.before_change()
    free = time.perf_counter()
    method.finish()
    return saved - begun + free - resumed, time.perf_counter() - begun


class Training:
    """The workload, one step at a time."""

    def __init__(self) -> None:
        self._work = Workload()
        self.model = self._work.build()
        self.optimizer = self._work.adam(self.model)
        self._number = 0
        self.step(lambda: None)

    def step(self, before_change: Callable[[], None]) -> float:
        """Make one step and return how long ``before_change`` took."""
        loss_of(self.model(self._work.batch(self._number, 0))).backward()
        self._number += 1
        begun = time.perf_counter()
        before_change()
        waited = time.perf_counter() - begun
        self.optimizer.step()
        self.optimizer.zero_grad()
        return waited

    def tensors(self) -> Tensors:
        found = dict(self.model.named_parameters())
        for number, state in enumerate(self.optimizer.state.values()):
            found |= {f"{number}.{name}": value for name, value in state.items()}
        return {name: tensor.detach() for name, tensor in found.items()}


def busy(make: Callable[[State], Method], marks: Marks) -> None:
    training = Training()
    objects = {"model": training.model, "optimizer": training.optimizer}
    state = State(objects, directory(), training.tensors)
    version = 0
    with closing(make(state)) as method:
        for pair in range(1 + int(os.environ["BENCH_STEPS"])):
            plain = [timed(training, Method(), 0)[0] for _ in range(STEPS_OF_A_BLOCK)]
            with_snapshots = []
            for _ in range(STEPS_OF_A_BLOCK):
                version += 1
                with_snapshots.append(timed(training, method, version))
                state.remove_before(version)
            method.before_change()
            method.finish()
            if pair:  # the first step of a block has no snapshot before it
                steps, blocked = zip(*with_snapshots[1:], strict=True)
                cores = len(os.sched_getaffinity(0))
                marks.add("pair", plain=plain[1:], steps=steps, blocked=blocked, cores=cores)
        check(state, method, version + 1)
    marks.add("checked")


def timed(training: Training, method: Method, version: int) -> tuple[float, float]:
    """Make a step and a snapshot after it; return how long both took, and how long the method blocked."""
    begun = time.perf_counter()
    waited = training.step(method.before_change)
    stepped = time.perf_counter()
    method.save(version)
    ended = time.perf_counter()
    return ended - begun, waited + ended - stepped


def check(state: State, method: Method, version: int) -> None:
    """Change everything as soon as that is allowed; raises if the snapshot is not of what was there."""
    before = {name: tensor.clone() for name, tensor in state.tensors().items()}
    method.save(version)
    method.before_change()
    for tensor in state.tensors().values():
        tensor.add_(1)
    method.finish()
    held = method.loaded()
    if held is None:
        return
    if set(held) != set(before):
        raise Torn(f"its snapshot holds {len(held)} tensors, the state has {len(before)}")
    wrong = [name for name, tensor in before.items() if not torch.equal(held[name], tensor)]
    if wrong:
        raise Torn(f"{len(wrong)} of {len(before)} tensors in its snapshot were changed after it was taken")


def directory() -> Path:
    place = Path(os.environ["BENCH_OUT"]) / "saved"
    place.mkdir()
    return place
