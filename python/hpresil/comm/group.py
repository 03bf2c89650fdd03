"""One generation's gloo process group, which can be given up at any moment.

The problem: a gloo operation whose peer hangs waits for a timeout that must be long, and so do the
construction and the deletion of a group. The design: the group listens on one address, and knows the
sockets of its own connections; shutting these down makes every pending operation fail within about 10 ms
(`Group.interrupt`, or a native thread through the liveness page, which needs no GIL).

Construction and deletion run in threads of their own; what does not end by its deadline is *parked*. Three
things can hold a construction up, and `Builder.interrupt` ends each of them: a key that is not published (the
store is ended), a connection that stalls (it is shut down), and a peer that was to connect to us and never
does. For the last, we connect to our own listener in its place: gloo accepts whoever names a pair's number,
8 bytes, and finds the connection closed. Should another version of gloo number its pairs otherwise, such a
construction is parked.

Not guaranteed: that a peer learns of an interruption faster than by its own.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

import torch

from hpresil.base.deadline import Deadline, now
from hpresil.base.errors import NativeError, PeerLost
from hpresil.comm.parking import park
from hpresil.comm.rendezvous import Connections, Rendezvous
from hpresil.comm.waiting import Waiter

if TYPE_CHECKING:
    from torch._C._distributed_c10d import Store

GIVE_UP_S = 0.2  # how long an interrupted construction may take before it is parked
OPERATION_TIMEOUT_S = 1800.0


class InterruptPage(Protocol):
    """The part of the liveness page that a group uses."""

    def arm_interrupt(self, generation: int, fds: list[int], /) -> None:
        """Shut down ``fds`` as soon as the generation word is above ``generation``."""

    def disarm_interrupt(self) -> object:
        """Forget the descriptors."""


class Group:
    """The members of one generation. Operations are called from one thread at a time.

    Made by `build`. Tags of `send` and `receive` pair them up between two ranks; the same tag may be used
    again, then the order of the calls pairs them. What starts an operation returns its work, to be finished
    by `finish`, and raises PeerLost if the group is closed or gloo refuses.

    Attributes:
        interrupted: Every pending and future operation fails.
        still_writes: A collective was given up before its threads had ended.
        readable: Segments that everybody in their owner's home has found readable, by owner (`homes`).
        alone: Ranks whose memory is not read in this group.
    """

    def __init__(
        self,
        backend: Any,
        connections: Connections | None,
        *,
        generation: int,
        rank: int,
        size: int,
        operation_timeout_s: float,
        page: InterruptPage | None,
    ) -> None:
        self.generation, self.rank, self.size = generation, rank, size
        self.operation_timeout_s = operation_timeout_s
        self.interrupted = self.still_writes = False
        self._waiter = Waiter(f"hpresil-wait-{generation}")
        self.readable: set[tuple[int, tuple[int, ...]]] = set()
        self.alone: set[int] = set()
        self._backend, self._connections, self._page = backend, connections, page
        if page is not None and connections is not None:
            try:
                page.arm_interrupt(generation, [endpoint.fd for endpoint in connections.endpoints])
            except NativeError as error:  # gloo has closed one of them already
                lost = self.lost("a connection ended as soon as the group was built", error)
                self.close(GIVE_UP_S)
                raise lost from error

    def send(self, tensor: torch.Tensor, to: int, tag: int) -> Any:
        """Start sending a contiguous tensor; it must not change before the work was waited for."""
        return self._start("send", f"with rank {to}", [tensor], to, tag)

    def receive(self, tensor: torch.Tensor, source: int, tag: int) -> Any:
        """Start receiving into a contiguous tensor of the sender's size."""
        return self._start("recv", f"with rank {source}", [tensor], source, tag)

    def all_reduce(self, tensor: torch.Tensor) -> Any:
        """Start the backend's own sum over all ranks, in place; all ranks call it in the same order.

        Its threads may go on writing to ``tensor`` after a failed wait: until the work says it is completed.
        """
        return self._start("allreduce", "of all ranks", [tensor])

    def finish(self, works: list[Any], deadline: Deadline) -> None:
        """Wait for all ``works`` without the GIL and destroy them, also those after a failed one.

        Raises:
            PeerLost: One failed, was interrupted, or did not end by the deadline.
        """
        if not works:
            return
        began = now()
        try:
            self._waiter.finish(works, deadline, lambda: self.interrupted)
        except RuntimeError as error:
            raise self.lost(f"{deadline.what} failed after {now() - began:.3f} s", error) from error

    @property
    def left_behind(self) -> bool:
        """Whether operations were given up whose buffers may still be written to: use those never again."""
        return self._waiter.left_behind or self.still_writes

    def lost(self, what: str, error: Exception) -> PeerLost:
        """Give the group up, so that peers learn of it, and return the error to raise."""
        why = "it was interrupted" if self.interrupted else str(error).splitlines()[0]
        self.interrupt()
        return PeerLost(
            f"{what}: {why}; the step is repeated in the next generation",
            rank=self.rank,
            generation=self.generation,
        )

    def interrupt(self) -> None:
        """Make every pending and future operation fail soon. Any thread, any number of times."""
        self.interrupted = True
        if self._connections is not None:
            self._connections.shut_down()

    def close(self, deadline_s: float) -> bool:
        """Delete the group within ``deadline_s`` seconds; returns False if it had to be parked.

        Not while a thread waits for it: deleting a group makes it forget its pending operations.
        """
        if self._page is not None and self._connections is not None:
            self._page.disarm_interrupt()
        self._page = None
        self.interrupt()
        holder = [self._backend]
        self._backend = None
        if holder[0] is None:
            return True
        self._waiter.end()
        waiting = self._waiter.thread
        if waiting is not None and self._waiter.left_behind:
            park(waiting, f"a lost operation of generation {self.generation}", holder)
            return False
        thread = threading.Thread(target=holder.clear, daemon=True, name=f"hpresil-close-{self.generation}")
        thread.start()
        thread.join(deadline_s)
        if thread.is_alive():
            park(thread, f"deletion of the group of generation {self.generation}")
        return not thread.is_alive()

    def _start(self, operation: str, whose: str, *arguments: Any) -> Any:
        backend = self._backend  # `close` may drop it meanwhile
        if self.interrupted or backend is None:
            raise self.lost(f"{operation} {whose} was refused", RuntimeError("the group is closed"))
        try:
            return getattr(backend, operation)(*arguments)
        except RuntimeError as error:
            raise self.lost(f"{operation} {whose} failed", error) from error


class Builder:
    """Builds one group, and can be told to give up. See `build` for the arguments."""

    def __init__(
        self,
        store: Store,
        *,
        generation: int,
        rank: int,
        size: int,
        hostname: str,
        timeout_s: float,
        page: InterruptPage | None,
        operation_timeout_s: float = OPERATION_TIMEOUT_S,
    ) -> None:
        self._generation, self._rank, self._size = generation, rank, size
        self._timeout_s, self._page = timeout_s, page
        self._operation_timeout_s = operation_timeout_s
        self._rendezvous = Rendezvous(store, rank=rank, size=size, hostname=hostname, timeout_s=timeout_s)
        self._lock = threading.Lock()
        self._interrupted = False
        self._built: Group | None = None

    def interrupt(self) -> None:
        """Make `build` raise PeerLost soon, and interrupt the group if it is built. Any thread, any time."""
        with self._lock:
            self._interrupted = True
            built = self._built
        if built is not None:
            built.interrupt()
        self._rendezvous.interrupt()

    def build(self) -> Group:
        """Build the group; blocks without the GIL.

        Raises:
            PeerLost: A peer did not come by the deadline, died meanwhile, or `interrupt` was called.
        """
        if self._size == 1:
            return self._group(None, None)
        began = now()
        thread = threading.Thread(
            target=self._rendezvous.run, daemon=True, name=f"hpresil-build-{self._generation}"
        )
        thread.start()
        self._rendezvous.settled.wait(self._timeout_s)
        if not self._rendezvous.ended.is_set():
            self.interrupt()
            if not self._rendezvous.ended.wait(GIVE_UP_S):
                park(thread, f"construction of the group of generation {self._generation}")
        backend, connections, error = self._rendezvous.take()
        if backend is None or connections is None:
            raise PeerLost(
                f"no group of {self._size} ranks after {now() - began:.3f} s: {error}; "
                "the next generation builds its own",
                rank=self._rank,
                generation=self._generation,
            ) from error
        return self._group(backend, connections)

    def _group(self, backend: Any, connections: Connections | None) -> Group:
        group = Group(
            backend,
            connections,
            generation=self._generation,
            rank=self._rank,
            size=self._size,
            operation_timeout_s=self._operation_timeout_s,
            page=self._page,
        )
        with self._lock:
            self._built = group
            interrupted = self._interrupted
        if interrupted:
            group.interrupt()
        return group


def build(
    store: Store,
    *,
    generation: int,
    rank: int,
    size: int,
    hostname: str,
    timeout_s: float,
    page: InterruptPage | None,
    operation_timeout_s: float = OPERATION_TIMEOUT_S,
) -> Group:
    """Build the group of one generation.

    Args:
        store: Name space of this generation alone; `comm.store.GenerationStore` in production.
        generation: The membership counter.
        rank: Place of this process in the view.
        size: Number of members. 1 needs neither store nor sockets.
        hostname: Address to listen on, and the only one.
        timeout_s: Deadline of the construction, in seconds.
        page: Liveness page whose generation word interrupts the group, or None.
        operation_timeout_s: Deadline of an operation, in seconds. Long: a slow peer is not a lost one, and
            a lost one is noticed elsewhere.

    Raises:
        PeerLost: See `Builder.build`; use a `Builder` to be able to interrupt it.
    """
    builder = Builder(
        store,
        generation=generation,
        rank=rank,
        size=size,
        hostname=hostname,
        timeout_s=timeout_s,
        page=page,
        operation_timeout_s=operation_timeout_s,
    )
    return builder.build()
