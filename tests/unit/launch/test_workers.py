import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hpresil.launch.guard import Guard
from hpresil.launch.workers import Start, Workers

HOLDING = """
import os, signal, subprocess, sys, time
from hpresil.native import Page
page = Page.attach(int(os.environ["FD"]))
page.hold()
page.stamp(1, 7, 2)
memory = bytearray(int(sys.argv[2]) << 20)
for i in range(0, len(memory), 4096): memory[i] = 1
print("ready", flush=True)
match sys.argv[1]:
    case "kill": os.kill(os.getpid(), signal.SIGKILL)
    case "exit": os._exit(3)
    case "notice": page.give_notice(); time.sleep(60)
    case "wait": time.sleep(60)
"""


class Seen:
    def __init__(self):
        self.gone, self.reaped = {}, {}

    def on_gone(self, worker, gone):
        self.gone[worker.id] = (gone, time.monotonic())

    def on_reaped(self, worker, status):
        self.reaped[worker.id] = (status, time.monotonic())


def supervise(tmp_path, scenario):
    """Run `scenario(workers, start, seen)` with a guard, and see that nothing is left."""

    async def run():
        seen, guard = Seen(), Guard()
        workers = Workers(guard, seen.on_gone, seen.on_reaped)

        async def start(worker, *command):
            words = [sys.executable, "-c", HOLDING, *command] if len(command) == 2 else list(command)
            log = tmp_path / f"worker-{worker}.log"
            env = {**os.environ}
            return await workers.start(
                Start(worker, 0, False, words, log, (), lambda page: {**env, "FD": str(page.fd)})
            )

        try:
            async with asyncio.timeout(60):
                await scenario(workers, start, seen)
        finally:
            for worker in workers.all():
                workers.kill(worker, "killed")
            for worker in workers.all():
                await asyncio.wait_for(worker.reaped.wait(), 10)
            guard.close()

    asyncio.run(run())


async def printed(worker):
    while "ready" not in worker.log.read_text():
        await asyncio.sleep(0.005)


def test_an_exit_without_a_page_is_seen_through_the_pidfd(tmp_path):
    async def scenario(workers, start, seen):
        worker = await start(0, "sh", "-c", "exit 3", "")
        await worker.reaped.wait()
        gone, _ = seen.gone[0]
        assert (gone.reason, gone.status, gone.armed, gone.step) == ("exited", 3, False, -1)
        assert seen.reaped[0][0] == 3
        assert workers.all() == []

    supervise(tmp_path, scenario)


@pytest.mark.parametrize(("how", "reason", "status"), [("kill", "killed", -9), ("exit", "exited", 3)])
def test_the_end_of_a_big_process_is_known_before_its_memory_is_free(tmp_path, how, reason, status):
    async def scenario(workers, start, seen):
        worker = await start(0, how, "600")
        await worker.reaped.wait()
        gone, noticed = seen.gone[0]
        assert (gone.reason, gone.status) == (reason, status)
        assert (gone.step, gone.slot, gone.armed) == (7, 2, True)
        assert seen.reaped[0][1] - noticed > 0.01, "it was noticed no earlier than the parent's wait"

    supervise(tmp_path, scenario)


def test_a_worker_that_gives_notice_is_fenced(tmp_path):
    async def scenario(workers, start, seen):
        worker = await start(0, "notice", "1")
        await worker.reaped.wait()
        assert (seen.gone[0][0].reason, seen.gone[0][0].status) == ("ended", None)
        assert seen.reaped[0][0] == -9

    supervise(tmp_path, scenario)


def test_what_it_announced_is_its_status(tmp_path):
    async def scenario(workers, start, seen):
        (tmp_path / "worker-0.exit").write_text("5\n")
        worker = await start(0, "notice", "1")
        await worker.reaped.wait()
        assert (seen.gone[0][0].reason, seen.gone[0][0].status) == ("exited", 5)

    supervise(tmp_path, scenario)


def test_after_the_job_a_notice_gives_it_time_to_leave(tmp_path):
    async def scenario(workers, start, seen):
        worker = await start(0, "notice", "1")
        worker.may_leave = True
        await printed(worker)
        await asyncio.sleep(0.3)
        assert not seen.gone
        workers.kill(worker, "killed")
        await worker.reaped.wait()
        assert seen.gone[0][0].reason == "killed"

    supervise(tmp_path, scenario)


def test_the_reason_of_a_kill_is_what_the_agent_says_once(tmp_path):
    async def scenario(workers, start, seen):
        worker = await start(0, "wait", "1")
        await printed(worker)
        os.kill(worker.pid, signal.SIGSTOP)
        workers.kill(worker, "hung")
        workers.kill(worker, "killed")
        assert workers.get(0) is None
        assert workers.live() == []
        await worker.reaped.wait()
        assert seen.gone[0][0].reason == "hung"

    supervise(tmp_path, scenario)


def test_the_whole_group_goes_also_after_a_clean_exit(tmp_path):
    async def scenario(workers, start, seen):
        worker = await start(0, "sh", "-c", "sleep 100 & echo $! ready", "")
        await worker.reaped.wait()
        child = int(worker.log.read_text().split()[0])
        for _ in range(200):
            try:
                if Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                    return
            except OSError:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("a child outlived its worker")

    supervise(tmp_path, scenario)


def test_nothing_is_kept_open_for_workers_of_the_past(tmp_path):
    async def scenario(workers, start, seen):
        async def one(worker):
            await (await start(worker, "true", "", "")).reaped.wait()

        await one(0)
        await asyncio.sleep(1.2)  # a watch ends within a second
        before = len(os.listdir("/proc/self/fd"))
        for worker in range(1, 8):
            await one(worker)
        for _ in range(60):
            if len(os.listdir("/proc/self/fd")) <= before:
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{len(os.listdir('/proc/self/fd')) - before} descriptors are left open")

    supervise(tmp_path, scenario)


def test_a_program_that_cannot_be_started_leaves_nothing(tmp_path):
    async def scenario(workers, start, seen):
        with pytest.raises(FileNotFoundError):
            await start(0, "/nonexistent/program", "", "")
        assert workers.all() == []

    supervise(tmp_path, scenario)


def test_an_adopted_daemon_lives_until_the_job_ends(tmp_path):
    code = f"""
import asyncio, os
from hpresil.launch import kernel
from hpresil.launch.guard import Guard
from hpresil.launch.workers import Start, Workers
from pathlib import Path
kernel.adopt_orphans()
async def main():
    guard = Guard()
    workers = Workers(guard, lambda *a: None, lambda *a: None)
    words = ["sh", "-c", "setsid sleep 100 & sleep 0.2"]
    log = Path({str(tmp_path / "w.log")!r})
    worker = await workers.start(Start(0, 0, False, words, log, (), lambda page: os.environ))
    await worker.reaped.wait()
    workers.collect_orphans()
    print(len(kernel.children() - {{guard.pid}}))
    while workers.collect_orphans(everything=True):
        await asyncio.sleep(0.01)
    print(len(kernel.children() - {{guard.pid}}))
    guard.close()
asyncio.run(main())
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (out.returncode, out.stdout) == (0, "1\n0\n"), out


def test_children_from_before_the_job_are_left_alone(tmp_path):
    # A child in the session of a leader that has ended, as an orphan of a worker would be.
    leader = "import subprocess; print(subprocess.Popen(['sleep', '100'], stdout=-3).pid)"
    code = f"""
import asyncio, os, signal, subprocess, sys
from hpresil.launch import kernel
from hpresil.launch.guard import Guard
from hpresil.launch.workers import Workers
kernel.adopt_orphans()
words = [sys.executable, "-c", {leader!r}]
child = int(subprocess.run(words, start_new_session=True, stdout=subprocess.PIPE).stdout)
async def main():
    guard = Guard()
    workers = Workers(guard, lambda *a: None, lambda *a: None)
    found = [workers.collect_orphans(), workers.collect_orphans(everything=True)]
    print(found, kernel.children() == {{child, guard.pid}})
    guard.close()
try:
    asyncio.run(main())
finally:
    os.kill(child, signal.SIGKILL)
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (out.returncode, out.stdout) == (0, "[False, False] True\n"), out
