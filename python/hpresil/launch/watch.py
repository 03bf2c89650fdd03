"""The agent's tick: reads the liveness pages, applies the hang rule, collects orphans."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hpresil.base.config import Config
from hpresil.base.deadline import now
from hpresil.base.phases import PHASES
from hpresil.launch import kernel
from hpresil.launch.hang import Hang, HangRule, Observed
from hpresil.launch.picture import Picture
from hpresil.launch.workers import WorkerProcess, Workers

TICK_S = 0.1
ORPHAN_TICKS = 5


class Watch:
    """Looks at all live workers ten times a second.

    Args:
        workers: The processes.
        picture: Who is a member and has reported.
        config: The limits.
        on_hang: Called to have a hung worker killed.
        on_spared: Called once for each suspicion that is reported and not punished, with the reason.
    """

    def __init__(
        self,
        workers: Workers,
        picture: Picture,
        config: Config,
        on_hang: Callable[[WorkerProcess, Hang], None],
        on_spared: Callable[[Hang, str], None],
    ) -> None:
        self.rule = HangRule(config.hang_timeout_min_s, config.outside_timeout_s)
        self._workers, self._picture = workers, picture
        self._on_hang, self._on_spared = on_hang, on_spared
        self._reported: set[tuple[int, str]] = set()

    async def run(self) -> None:
        """Tick until cancelled."""
        ticks = 0
        while True:
            await asyncio.sleep(TICK_S)
            self.tick(now())
            ticks += 1
            if ticks % ORPHAN_TICKS == 0:
                self._workers.collect_orphans()

    def tick(self, at: float) -> None:
        """Look at all live workers once."""
        seen = {worker.id: self._observe(worker, at) for worker in self._workers.live()}
        verdict = self.rule.observe(seen, at, elsewhere=bool(self._picture.sources - seen.keys()))
        for hang in verdict.spared:
            if (hang.worker, verdict.reason) not in self._reported:
                self._reported.add((hang.worker, verdict.reason))
                self._on_spared(hang, verdict.reason)
        if not verdict.spared:
            self._reported.clear()
        for hang in verdict.hung:
            worker = self._workers.get(hang.worker)
            if worker is not None:
                self._on_hang(worker, hang)

    def _observe(self, worker: WorkerProcess, at: float) -> Observed:
        page, picture = worker.page.read(), self._picture
        stamp_s = page.stamp_ns / 1e9
        member = worker.id in picture.members and worker.id not in picture.released
        owes = member and worker.id not in picture.reported
        quiet = member and at - stamp_s > self.rule.min_s / 3
        status = kernel.stat(worker.pid) if quiet else None
        return Observed(
            phase=PHASES[page.phase],
            step=page.step,
            slot=page.slot,
            stamp_s=stamp_s,
            stamps=page.stamps,
            commits=picture.commits.get(worker.id, 0),
            stopped=status is not None and status.stopped,
            has_state=worker.id in picture.holders,
            member=member,
            owes_since=picture.installed_at if owes else None,
            native_s=page.native_ns / 1e9,
            interpreter_s=page.interpreter_ns / 1e9,
        )
