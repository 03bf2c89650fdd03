"""The end of a job on one node: workers that may leave by themselves get time, the others are killed."""

from __future__ import annotations

import asyncio

from hpresil.launch.attendance import Attendance
from hpresil.launch.job import Job
from hpresil.launch.picture import Picture
from hpresil.launch.terminal import Terminal
from hpresil.membership.messages import JobEnded

KILL_WAIT_S = 10.0
ORPHAN_ROUNDS = 20


class Farewell:
    """Lets go of the workers.

    Args:
        job: What ran.
        picture: Knows who was told to leave.
        attendance: The workers.
        terminal: Told of those who do not end.

    Attributes:
        hurry: Set when everything is to be killed at once.
    """

    def __init__(self, job: Job, picture: Picture, attendance: Attendance, terminal: Terminal) -> None:
        self._job, self._picture = job, picture
        self._attendance, self._terminal = attendance, terminal
        self.hurry = asyncio.Event()

    async def say(self, ended: JobEnded) -> int:
        """Let go of the workers in the way this end asks for; return the exit status of the job."""
        workers = self._attendance.workers
        self._attendance.start_no_more()
        may_leave = self._picture.released if ended.status == 0 else self._picture.stopped
        for worker in workers.live():
            worker.may_leave = worker.id in may_leave
            if not worker.may_leave:
                workers.kill(worker, "killed")
        patience_s = self._job.config.finish_timeout_s if ended.status == 0 else self._job.shutdown_timeout_s
        await workers.until_reaped(patience_s, self.hurry)
        if ended.status == 0 and workers.live() and not self.hurry.is_set():
            self._attendance.exit_status = self._attendance.exit_status or 1
            late = ", ".join(f"worker {worker.id}" for worker in workers.live())
            self._terminal.say(f"{late} did not end within {patience_s:g} s of the last step and is killed")
        return ended.status or self._attendance.exit_status

    async def kill_everything(self) -> None:
        """Kill every worker and whatever descends from one; wait until the kernel is done with them."""
        workers = self._attendance.workers
        self._attendance.start_no_more()  # also when something failed before the job ended
        for worker in workers.live():
            workers.kill(worker, "killed")
        self.hurry.clear()
        await workers.until_reaped(KILL_WAIT_S, self.hurry)
        await asyncio.get_running_loop().run_in_executor(None, workers.stacks.close)
        for worker in workers.all():
            self._terminal.say(f"process {worker.pid} of worker {worker.id} does not die")
        for _ in range(ORPHAN_ROUNDS):
            if not workers.collect_orphans(everything=True):
                break
            await asyncio.sleep(0.01)
