"""Four receivers that pass on what they get, a process each: one that says nothing is an error in time."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bench.micro import raw_sendfile

if TYPE_CHECKING:
    from bench.micro.transfer import Engine, Memory

HOPS = 4
SILENCE_S = 150.0
"""How long a receiver may say nothing: longer than it waits for a fetch itself (`transfer_hop`)."""
END_S = 10.0


class ChainError(RuntimeError):
    """A receiver has said nothing for too long, or has ended."""


class Chain:
    """The receivers, which end with it.

    Whatever is asked of it raises ChainError if a receiver does not say within ``silence_s`` that it is done.
    ``command`` starts one receiver.
    """

    def __init__(
        self,
        have: Memory,
        engine: Engine,
        *,
        command: Sequence[str] = (sys.executable, "-m", "bench.micro.transfer_hop"),
        silence_s: float = SILENCE_S,
    ) -> None:
        self._have, self._engine, self._silence_s = have, engine, silence_s
        self._hops = [
            subprocess.Popen(
                [*command, str(have.nbytes)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(HOPS)
        ]
        try:
            self._ports = [tuple(map(int, self._line(number).split())) for number in range(HOPS)]
        except BaseException:
            self.close(kill=True)
            raise

    def __enter__(self) -> Chain:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        self.close(kill=failure is not None)

    def _line(self, number: int) -> str:
        """Return what a receiver says next. It says one line, and only when it has done what it was told."""
        hop = self._hops[number]
        assert hop.stdout is not None
        if not select.select([hop.stdout], [], [], self._silence_s)[0]:
            raise ChainError(
                f"receiver {number} of the chain (process {hop.pid}) has said nothing for"
                f" {self._silence_s:g} s; it or one before it hangs: run the bench again, with less beside it"
            )
        line = hop.stdout.readline()
        if not line:
            raise ChainError(f"receiver {number} of the chain has ended; its error is above")
        return line

    def _tell(self, number: int, words: str) -> None:
        hop = self._hops[number]
        assert hop.stdin is not None
        print(words, file=hop.stdin, flush=True)

    def _all_done(self) -> None:
        assert [self._line(number).strip() for number in range(HOPS)] == ["done"] * HOPS

    def raw(self) -> None:
        with raw_sendfile.listener() as door:
            before = [door.getsockname()[1], *(port for port, _ in self._ports)]
            for number in range(HOPS):
                self._tell(number, f"raw {before[number]} {int(number == HOPS - 1)}")
            sock, _ = door.accept()
            with sock:
                raw_sendfile.send(sock, self._have.fd, 0, self._have.nbytes)
            self._all_done()

    def engine(self) -> None:
        self._engine.renew()
        before = [self._engine.server.port, *(port for _, port in self._ports)]
        for number in range(HOPS):
            self._tell(number, f"chain {self._engine.generation} {before[number]}")
        self._all_done()

    def close(self, *, kill: bool = False) -> None:
        for hop in self._hops if kill else ():
            hop.kill()
        for hop in self._hops:
            try:
                hop.communicate(timeout=END_S)  # the end of its input ends it
            except subprocess.TimeoutExpired:
                hop.kill()
                hop.communicate(timeout=END_S)
