"""One call of the coordinator's `step`: the state so far, and the actions so far.

The rules are written as small functions that change a `Turn`; the values inside stay immutable, so
the caller of `step` sees a pure function.
"""

from __future__ import annotations

from typing import Any

import msgspec

from hpresil.membership.messages import Deliver, FenceWorker, ToAgent, ToWorker
from hpresil.membership.state import READY, State, Worker


class Turn:
    """The work in progress of one event.

    Attributes:
        state: The state after the changes made so far.
        actions: What is to be sent, in order.
        now: The time of the event.
    """

    def __init__(self, state: State, now: float) -> None:
        self.state = state
        self.now = now
        self.actions: list[ToAgent] = []

    def set(self, **changes: Any) -> None:
        """Replace fields of the state."""
        self.state = msgspec.structs.replace(self.state, **changes)

    def put(self, worker: Worker) -> None:
        """Add or replace a worker."""
        self.set(workers={**self.state.workers, worker.id: worker})

    def update(self, worker: int, **changes: Any) -> None:
        """Replace fields of one worker."""
        self.put(msgspec.structs.replace(self.state.workers[worker], **changes))

    def remove(self, worker: int) -> None:
        """Take a lost worker out of everything."""
        self.set(workers={w: known for w, known in self.state.workers.items() if w != worker})
        self._unseat(worker)

    def reached(self, worker: int, version: int) -> None:
        """Note that ``worker`` holds ``version``, if that is the newest."""
        if version > self.state.newest:
            self.set(newest=version, newest_by=worker, group_losses=0)

    def copied(self, worker: int, version: int) -> None:
        """Note what became of a copy, whatever generation it was for; -1: nothing."""
        if worker in self.state.members and self.state.workers[worker].copying:
            self.update(worker, version=version, copying=False)

    def deliver(self, to: int, what: ToWorker) -> None:
        """Send ``what`` to worker ``to``."""
        self.actions.append(Deliver(to=to, what=what))

    def fence(self, worker: int, why: str) -> None:
        """Have ``worker`` killed; from now on it is no member and nothing it says counts."""
        self.actions.append(FenceWorker(worker=worker, why=why))
        self.update(worker, phase="fenced", since=self.now)
        self._unseat(worker)

    def _unseat(self, worker: int) -> None:
        state = self.state
        self.set(
            members=tuple(m for m in state.members if m != worker),
            restoring=tuple(m for m in state.restoring if m != worker),
            reports={m: report for m, report in state.reports.items() if m != worker},
        )

    def available(self) -> tuple[int, ...]:
        """Return the workers that could become members now, the oldest first.

        Once the first state is installed, only those that have made their dry step. None on a node that
        is to be drained.
        """
        phases = ("spare",) if self.state.trained else READY
        drained = {node.name for node in self.state.nodes.values() if node.draining}
        workers = self.state.workers.values()
        return tuple(sorted(w.id for w in workers if w.phase in phases and w.node not in drained))

    def rank(self, worker: int) -> int:
        """Return the worker's rank in the current view, -1 if it has none."""
        return self.state.members.index(worker) if worker in self.state.members else -1

    def name(self, worker: int) -> str:
        """Return how messages call the worker."""
        rank = self.rank(worker)
        return f"worker {worker}" if rank < 0 else f"worker {worker} (rank {rank})"

    def closing(self) -> bool:
        """Return whether the members are on their way out of the loop, so that nobody joins."""
        members = [self.state.workers[m] for m in self.state.members]
        if any(m.finished >= 0 for m in members):
            return True
        return bool(self.state.draining) and any(m.version >= 0 for m in members)
