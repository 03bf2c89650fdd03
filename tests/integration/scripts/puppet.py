"""A worker without torch that speaks the protocol by hand: one thread, one sum as its state.

A step: stamp, sleep, meet the other members at a key of the store, commit. `--fault WORKER:STEP:KIND`
makes one worker misbehave when it is about to meet the others at that step."""

from __future__ import annotations

import argparse
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from hpresil.base.phases import CODE
from hpresil.membership import messages as m
from hpresil.membership.framing import BlockingChannel
from hpresil.native import Page
from hpresil.runtime import environment

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=10)
parser.add_argument("--step-s", type=float, default=0.01)
parser.add_argument("--fault", action="append", default=[])
parser.add_argument("--frame-bytes", type=int, default=4096)
parser.add_argument(
    "--children", action="store_true", help="leave children behind, one in a session of its own"
)
parser.add_argument("--after", type=int, default=0, help="exit status after the last step")
arguments = parser.parse_args()

WORKER = int(os.environ["HPRESIL_WORKER"])
ARENAS = [int(fd) for fd in os.environ["HPRESIL_ARENA_FDS"].split(",")]
FAULTS = {tuple(map(int, f.split(":")[:2])): f.split(":")[2] for f in arguments.fault}
FACTS = {"config.slots": "4", "kind": "puppet"}


class Puppet:
    def __init__(self) -> None:
        page = environment.read(os.environ).page
        assert isinstance(page, Page)
        self.page = page
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(os.environ["HPRESIL_SOCKET"])
        self.channel = BlockingChannel(sock)
        self.say(m.Hello(worker=WORKER, pid=os.getpid()))
        self.version, self.total = -1, 0.0
        self.members: list[int] = []
        self.generation = self.decided = 0
        self.met = False  # this step's key is set
        self.wanted = 0  # of the last request to the store
        self.frame: m.StateReady | None = None
        self.drain = False

    def say(self, message: m.FromWorker) -> None:
        self.channel.send(message)

    def stamp(self, phase: str, slot: int = -1) -> None:
        self.page.stamp(CODE[phase], self.version, slot)

    def listen(self, seconds: float) -> None:
        """Handle messages until a time has passed or something about the group has changed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            message = self.channel.receive(left)
            if message is not None and self.handle(message):
                return

    def handle(self, message: m.ToWorker) -> bool:
        match message:
            case m.StandBy():
                self.say(m.Ready(facts=FACTS, pristine=False))
            case m.View():
                self.generation, self.members = message.generation, message.members
                if WORKER in self.members:
                    phase = "empty" if self.version < 0 else "computing"
                    self.say(m.Report(generation=self.generation, version=self.version, phase=phase))
                return True
            case m.Decision():
                self.decided, self.met = message.generation, False
                if message.initial and WORKER not in message.sources:
                    self.version = 0
                return True
            case m.Serve():
                self.serve(message)
            case m.StateReady():
                self.frame = message
                return True
            case m.StoreValues():
                if message.request == self.wanted:
                    self.commit()
                    return True
            case m.Drain():
                self.drain = True
            case m.Save():
                path = Path(message.directory) / f"step-{self.version:08d}"
                path.mkdir(parents=True)
                self.say(m.Saved(version=self.version, path=str(path)))
            case m.Release():
                print("released", flush=True)
                sys.exit(arguments.after)
            case m.Stop():
                print(f"stopped: {message.reason}", flush=True)
                sys.exit(1)
        return False

    def serve(self, message: m.Serve) -> None:
        if message.version != self.version:
            self.say(m.ServeFailed(generation=message.generation, frame=message.frame, error="too late"))
            return
        os.pwrite(ARENAS[message.frame], f"{self.total.hex()}\n".encode(), 0)
        self.say(
            m.Served(generation=message.generation, version=self.version, frame=message.frame, frame_bytes=64)
        )

    def restore(self) -> None:
        assert self.frame is not None
        self.stamp("restoring")
        self.total = float.fromhex(os.pread(ARENAS[self.frame.frame], 64, 0).split(b"\n")[0].decode())
        self.version = self.frame.version
        self.say(m.Restored(generation=self.frame.generation, version=self.version, state_bytes=8))
        self.frame = None

    def commit(self) -> None:
        loss = self.total if FAULTS.get((WORKER, self.version)) != "diverge" else self.total + 1
        self.say(
            m.Committed(
                generation=self.generation,
                step=self.version,
                loss=loss.hex(),
                grad_norm=(0.5).hex(),
                samples="00",
                state="",
                world_size=len(self.members),
            )
        )
        self.say(m.Logged(step=self.version, values={"rank": self.members.index(WORKER), "loss": loss}))
        self.total += 1 / (self.version + 1)
        self.version, self.met = self.version + 1, False

    def meet(self) -> None:
        """Compute, then wait for the others."""
        self.stamp("computing", slot=self.members.index(WORKER))
        time.sleep(arguments.step_s)
        misbehave(FAULTS.get((WORKER, self.version), ""), self)
        rank = self.members.index(WORKER)
        self.stamp("waiting")
        self.say(m.StoreSet(generation=self.generation, key=f"{self.version}/{rank}", value=b"here"))
        self.wanted += 1
        keys = [f"{self.version}/{r}" for r in range(len(self.members))]
        self.say(m.StoreGet(request=self.wanted, generation=self.generation, keys=keys))
        self.met = True

    def run(self) -> None:
        self.say(m.Ready(facts=FACTS))
        self.say(m.Footprint(frame_bytes=arguments.frame_bytes))
        finished = 0
        while True:
            current = WORKER in self.members and self.decided == self.generation
            if current and self.version < 0 and self.frame and self.frame.generation == self.generation:
                self.restore()
            elif current and self.version >= 0 and (self.version >= arguments.steps or self.drain):
                if finished < self.generation:
                    finished = self.generation
                    self.stamp("done")
                    self.say(m.Finished(generation=finished, version=self.version, drained=self.drain))
                self.listen(1.0)
            elif current and self.version >= 0 and not self.met:
                self.listen(0.001)
                if WORKER in self.members and self.decided == self.generation and not self.drain:
                    self.meet()
            else:
                self.listen(1.0)


def misbehave(kind: str, puppet: Puppet) -> None:
    if kind and kind != "diverge":
        marker = Path(os.environ["HPRESIL_RUN_DIR"]) / f"fired-{WORKER}"
        marker.write_text(f"{time.monotonic()}")
    match kind:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "raise":
            raise RuntimeError("the puppet's own fault")
        case "exit0":
            os._exit(0)
        case "exit7":
            sys.exit(7)
        case "segv":
            ctypes.string_at(0)
        case "sleep":
            time.sleep(60)
        case "nap":
            time.sleep(1)
        case "garbage":
            puppet.channel._sock.send(b"\x00\x00\x00\x04junk")
        case "all":  # every worker at once
            os.kill(os.getpid(), signal.SIGKILL)


if arguments.children:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    subprocess.Popen(["sleep", "1000"], **quiet)
    subprocess.Popen(["sleep", "1001"], process_group=0, **quiet)
    subprocess.Popen(["sleep", "1002"], start_new_session=True, **quiet)
print("puppet", WORKER, flush=True)
Puppet().run()
