"""Real processes that act as ranks, started once and used by many tests.

Each process has a pipe to the test. A thread of it reads the pipe: the store's answers and the
order to interrupt arrive there while the main thread is inside torch, as in production.
"""

import dataclasses
import multiprocessing
import os
import queue
import signal
import threading
import time
from multiprocessing.connection import wait

DEADLINE_S = 30.0
START_S = 100.0  # importing torch takes long on a busy machine


class Here:
    """What a function that runs in a rank's process gets as its first argument."""

    def __init__(self, pipe):
        self._pipe, self._sending = pipe, threading.Lock()
        self._answers, self._requests = {}, 0
        self._changed = threading.Condition()
        self.calls = queue.Queue()
        self.group = self.builder = None
        self.stop_after_setting = None
        self.kept = {}

    def tell(self, *message):
        with self._sending:
            self._pipe.send(message)

    def store(self, generation, timeout_s=10.0):
        from hpresil.comm.store import GenerationStore

        def publish(key, value):
            self.tell("set", (generation, key), value)
            if self.stop_after_setting is not None and key.endswith(self.stop_after_setting):
                self.stop_after_setting = None
                os.kill(os.getpid(), signal.SIGSTOP)

        def fetch(keys, timeout_s):
            with self._changed:
                self._requests += 1
                number = self._requests
            self.tell("get", number, [(generation, key) for key in keys])
            with self._changed:
                if not self._changed.wait_for(lambda: number in self._answers, timeout_s):
                    raise TimeoutError(f"no answer for {keys}")
                return self._answers.pop(number)

        return GenerationStore(publish, fetch, generation=generation, timeout_s=timeout_s)

    def build(self, generation, rank, size, timeout_s=10.0, page=None):
        from hpresil.comm.group import Builder

        self.builder = Builder(
            self.store(generation, timeout_s),
            generation=generation,
            rank=rank,
            size=size,
            hostname="127.0.0.1",
            timeout_s=timeout_s,
            page=page,
            operation_timeout_s=20.0,
        )
        self.group = self.builder.build()
        return self.group

    def read(self):
        while True:
            try:
                message = self._pipe.recv()
            except (EOFError, OSError):
                os._exit(0)
            if message[0] == "values":
                with self._changed:
                    self._answers[message[1]] = message[2]
                    self._changed.notify_all()
            elif message[0] == "interrupt":
                self.builder.interrupt()
            else:
                self.calls.put(message[1:])


def main(pipe):
    import torch

    torch.set_num_threads(1)
    here = Here(pipe)
    threading.Thread(target=here.read, daemon=True).start()
    here.tell("ready")
    while True:
        function, arguments = here.calls.get()
        try:
            here.tell("done", function(here, **arguments))
        except Exception as error:
            here.tell("failed", f"{type(error).__name__}: {error}")


@dataclasses.dataclass
class Rank:
    process: multiprocessing.Process
    pipe: object
    said: queue.Queue


class RankPool:
    """Processes by number; the test decides which of them form a group."""

    def __init__(self):
        self._context = multiprocessing.get_context("spawn")
        self._ranks = []
        self._store, self._pending = {}, []
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()
        self._generation = 0

    def generation(self):
        self._generation += 1
        return self._generation

    def need(self, count):
        """Make processes 0 to count-1 alive."""
        fresh = []
        for number in range(count):
            if number == len(self._ranks) or not self._ranks[number].process.is_alive():
                ours, theirs = self._context.Pipe()
                process = self._context.Process(target=main, args=(theirs,), daemon=True)
                process.start()
                theirs.close()
                with self._lock:
                    self._ranks[number : number + 1] = [Rank(process, ours, queue.Queue())]
                fresh.append(number)
        for number in fresh:
            assert self.hear(number, START_S) == ("ready",)

    def start(self, number, function, **arguments):
        self._send(self._ranks[number], ("call", function, arguments))

    def hear(self, number, timeout_s=DEADLINE_S):
        return self._ranks[number].said.get(timeout=timeout_s)

    def result(self, number):
        said = self.hear(number)
        assert said[0] == "done", f"process {number}: {said}"
        return said[1]

    def run(self, function, each):
        """Run a function in processes 0, 1, … with the arguments ``each`` holds for them."""
        for number, arguments in enumerate(each):
            self.start(number, function, **arguments)
        return [self.result(number) for number in range(len(each))]

    def interrupt(self, number):
        self._send(self._ranks[number], ("interrupt",))

    def signal(self, number, which):
        os.kill(self._ranks[number].process.pid, which)
        if which == signal.SIGKILL:
            self._ranks[number].process.join(DEADLINE_S)

    def wait_stopped(self, number):
        deadline = time.monotonic() + DEADLINE_S
        while True:
            with open(f"/proc/{self._ranks[number].process.pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "T":
                    return
            assert time.monotonic() < deadline
            time.sleep(0.001)

    def close(self):
        self._closed.set()
        self._server.join(DEADLINE_S)
        for rank in self._ranks:
            rank.pipe.close()
            if rank.process.is_alive():
                rank.process.kill()
            rank.process.join(DEADLINE_S)
            rank.process.close()

    def _send(self, rank, message):
        try:
            rank.pipe.send(message)
        except OSError:
            pass  # it was killed; the test knows

    def _serve(self):
        gone = set()
        while not self._closed.is_set():
            with self._lock:
                by_pipe = {rank.pipe: rank for rank in self._ranks if rank.pipe not in gone}
            for pipe in wait(list(by_pipe), timeout=0.02):
                try:
                    self._handle(by_pipe[pipe], pipe.recv())
                except (EOFError, OSError):
                    gone.add(pipe)

    def _handle(self, rank, message):
        if message[0] == "set":
            self._store[message[1]] = message[2]
        elif message[0] == "get":
            self._pending.append((rank, *message[1:]))
        else:
            rank.said.put(message)
        for waiting in list(self._pending):
            asker, number, keys = waiting
            if all(key in self._store for key in keys):
                self._pending.remove(waiting)
                self._send(asker, ("values", number, [self._store[key] for key in keys]))
