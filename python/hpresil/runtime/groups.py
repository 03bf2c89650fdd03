"""Process groups of successive generations, built off the training thread.

A view arrives on the control thread, which must stay free to read the answers of the rendezvous
store; so one thread of its own tears the old group down and builds the new one while the training
thread may still be computing its slots. A newer view ends a construction that is under way.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from hpresil.base import failpoints, spans
from hpresil.base.deadline import Deadline
from hpresil.base.errors import DeadlineExceeded, GenerationChanged
from hpresil.comm.group import Builder, Group
from hpresil.comm.store import GenerationStore
from hpresil.membership.messages import FromWorker, GroupBuilt, GroupLost, StoreGet, StoreSet, View
from hpresil.native import Page

CLOSE_S = 5.0


class Rendezvous:
    """The worker's end of the rendezvous store: requests out, answers in."""

    def __init__(self, send: Callable[[FromWorker], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._answers: dict[int, queue.SimpleQueue[list[bytes]]] = {}
        self._next = 0

    def store(self, generation: int, timeout_s: float) -> GenerationStore:
        """Return a store whose keys live in the name space of ``generation``."""

        def put(key: str, value: bytes) -> None:
            self._send(StoreSet(generation=generation, key=key, value=value))

        def get(keys: list[str], timeout_s: float) -> list[bytes]:
            with self._lock:
                self._next += 1
                request, answer = self._next, queue.SimpleQueue[list[bytes]]()
                self._answers[request] = answer
            try:
                self._send(StoreGet(request=request, generation=generation, keys=keys))
                return answer.get(timeout=timeout_s)
            except queue.Empty:
                raise DeadlineExceeded(
                    f"the keys {keys} of generation {generation} did not appear within {timeout_s:g} s"
                ) from None
            finally:
                with self._lock:
                    self._answers.pop(request, None)

        return GenerationStore(put, get, generation=generation, timeout_s=timeout_s)

    def answered(self, request: int, values: list[bytes]) -> None:
        """Hand the answer of a request to whoever waits for it."""
        with self._lock:
            waiting = self._answers.get(request)
        if waiting is not None:
            waiting.put(values)


class Groups:
    """Builds the group of the newest view; `using` lends it to the training thread."""

    def __init__(
        self,
        *,
        worker: int,
        page: Page | None,
        send: Callable[[FromWorker], None],
        hostname: str,
        timeout_s: float,
    ) -> None:
        self.rendezvous = Rendezvous(send)
        self._worker, self._page, self._send = worker, page, send
        self._hostname, self._timeout_s = hostname, timeout_s
        self._changed = threading.Condition()
        self._newest = 0
        self._in_use = False
        self._group: Group | None = None
        self._builder: Builder | None = None
        self._views: queue.SimpleQueue[View | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="hpresil-regroup", daemon=True)
        self._thread.start()

    def install(self, view: View) -> None:
        """A newer view arrived: end what belongs to older ones, build its group. Never blocks."""
        with self._changed:
            self._newest = view.generation
            group, builder = self._group, self._builder
            self._changed.notify_all()
        if builder is not None:
            builder.interrupt()
        if group is not None:
            group.interrupt()
        self._views.put(view)

    @contextmanager
    def using(self, generation: int) -> Iterator[Group]:
        """Wait for the group of ``generation`` and keep it from being deleted while the block runs.

        Raises:
            GenerationChanged: A newer view was installed meanwhile.
            DeadlineExceeded: The group was not built in time.
        """
        deadline = Deadline(self._timeout_s, f"building the group of generation {generation}")
        with self._changed:
            while self._group is None or self._group.generation != generation:
                if self._newest > generation:
                    raise GenerationChanged(f"generation {generation} was replaced by {self._newest}")
                deadline.check()
                self._changed.wait(deadline.remaining())
            group = self._group
            self._in_use = True
        try:
            yield group
        finally:
            with self._changed:
                self._in_use = False
                self._changed.notify_all()

    def close(self) -> None:
        """End the thread and the group."""
        self._views.put(None)
        self._thread.join(CLOSE_S + 1.0)

    def _run(self) -> None:
        while True:
            view = self._views.get()
            with spans.span("regroup", generation=0 if view is None else view.generation):
                self._close_old()
                if view is not None and view.generation == self._newest and self._worker in view.members:
                    self._build(view)
            if view is None:
                return

    def _close_old(self) -> None:
        with self._changed:
            old, self._group = self._group, None
            # Deleting a group under a pending operation can leave the operation waiting for ever; it
            # was interrupted when the view arrived, so it ends within milliseconds.
            self._changed.wait_for(lambda: not self._in_use, CLOSE_S)
        if old is not None:
            old.close(CLOSE_S)

    def _build(self, view: View) -> None:
        rank = view.members.index(self._worker)
        failpoints.hit("regroup.group", worker=self._worker, rank=rank)
        builder = Builder(
            self.rendezvous.store(view.generation, self._timeout_s),
            generation=view.generation,
            rank=rank,
            size=len(view.members),
            hostname=self._hostname,
            timeout_s=self._timeout_s,
            page=self._page,
            operation_timeout_s=self._timeout_s,
        )
        with self._changed:
            if self._newest > view.generation:
                return
            self._builder = builder
        try:
            group = builder.build()
        except Exception as error:  # whatever it is, the coordinator has to hear of it: others wait
            if self._newest == view.generation:
                self._send(GroupLost(generation=view.generation, error=repr(error)))
            return
        finally:
            with self._changed:
                self._builder = None
        with self._changed:
            self._group = group
            self._changed.notify_all()
        self._send(GroupBuilt(generation=view.generation))
