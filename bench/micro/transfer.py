"""Transfers between agents beside their floors: `python -m bench micro transfer`.

* Loopback, 1, 2 and 4 streams: the engine, when the chunks' checks are made on the way ("first time") and
  when they are there from an earlier transfer ("again"), beside raw sendfile without checks and TLS 1.3.
* The same machine: the passed descriptor and one copy, beside one streamed copy.
* A chain of four receivers, a process each, beside a raw sendfile chain of the same hops.
* What a keyed check of a byte costs, by primitive.

All memory is faulted in and mapped before. Both ends run on this machine, so they share its cores.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator

from bench.micro import raw_sendfile
from bench.micro.transfer_chain import Chain
from bench.micro.transfer_hop import JOB, SECRET
from bench.rows import Row, row, take_turns
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from hpresil import native
from hpresil.membership import tls
from hpresil.snapshot.transfer import Fetch, FetchSettings, FrameServer, Route, ServerSettings, Source

SUITE = "micro"
MIB = 1 << 20


class Memory:
    """A memory file with a warm mapping."""

    def __init__(self, nbytes: int) -> None:
        self.fd, self.nbytes = native.memfd("bench", nbytes), nbytes
        native.seal(self.fd, shrink=True)
        self.mapping = native.Mapping(self.fd, nbytes, populate=True)
        self.view = memoryview(self.mapping)
        block = os.urandom(MIB)
        for at in range(0, nbytes, MIB):
            self.view[at : at + MIB] = block

    def close(self) -> None:
        self.view.release()
        self.mapping.close()
        os.close(self.fd)


class Engine:
    """A server that offers one frame under a new generation whenever its checks are to be made anew."""

    def __init__(self, have: Memory, want: Memory, unix_path: str = "") -> None:
        self._have, self._want, self._unix_path = have, want, unix_path
        self.server = FrameServer(SECRET, JOB, ServerSettings(host="127.0.0.1", unix_path=unix_path))
        self._offer, self.generation = 0, 0
        self.renew()

    def renew(self) -> None:
        self.server.withdraw(self._offer, 10)
        self.generation += 1
        self._offer = self.server.offer(
            self.generation, 1, self._have.fd, self._have.nbytes, mapping=self._have.mapping
        )

    def fetch(self, source: Source, streams: int) -> None:
        want = self._want
        fetch = Fetch(
            SECRET,
            JOB,
            self.generation,
            1,
            want.fd,
            want.nbytes,
            [source],
            settings=FetchSettings(streams=streams),
            mapping=want.mapping,
        )
        fetch.wait(120)
        fetch.outcome().check()

    def first_time(self, streams: int) -> None:
        self.renew()
        self.again(streams)

    def again(self, streams: int) -> None:
        self.fetch(Source("s", (Route("127.0.0.1", self.server.port),)), streams)

    def here(self) -> None:
        self.fetch(Source("s", unix_path=self._unix_path), 1)


def through_tls(credentials: tls.Credentials, have: Memory, want: Memory) -> None:
    def send(sock: socket.socket) -> None:
        with credentials.server().wrap_socket(sock, server_side=True) as secured:
            for at in range(0, have.nbytes, MIB):
                secured.sendall(have.view[at : at + MIB])
            secured.recv(1)

    with raw_sendfile.listener() as door:
        near = socket.create_connection(door.getsockname())
        far, _ = door.accept()
        thread = threading.Thread(target=send, args=(far,))
        thread.start()
        with credentials.client().wrap_socket(near) as secured:
            at = 0
            while at < want.nbytes:
                at += secured.recv_into(want.view[at : at + MIB])
            secured.sendall(b"1")
        thread.join()


def figures(
    case: str, nbytes: int, seconds: dict[str, list[float]], floor: str, share: float
) -> Iterator[Row]:
    """Yield bytes per second of each contender, and the engine's share of the floor."""
    rates = {name: [nbytes / each / 1e9 for each in times] for name, times in seconds.items()}
    least = row(SUITE, case, floor, metric="rate", unit="GB/s", figures=rates.pop(floor))
    yield least
    for name, rate in rates.items():
        goal = None if least.median is None or "engine" not in name else share * least.median
        yield row(SUITE, case, name, metric="rate", unit="GB/s", figures=rate, floor=least.median, goal=goal)


def over_loopback(have: Memory, want: Memory, repeats: int) -> Iterator[Row]:
    engine = Engine(have, want)
    credentials = tls.from_secret(SECRET)
    for streams in (1, 2, 4):
        contenders: dict[str, Callable[[], object]] = {
            "raw sendfile": functools.partial(raw_sendfile.loopback, have.fd, want.view, streams),
            "engine, first time": functools.partial(engine.first_time, streams),
            "engine, again": functools.partial(engine.again, streams),
        }
        if streams == 1:
            contenders["TLS 1.3"] = functools.partial(through_tls, credentials, have, want)
        seconds = take_turns(contenders, repeats=repeats)
        yield from figures(f"loopback, {streams} streams", have.nbytes, seconds, "raw sendfile", 0.9)
    engine.server.close()


def on_one_machine(have: Memory, want: Memory, repeats: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(have, want, f"{folder}/t")
        to, come = want.mapping.address, have.mapping.address
        contenders = {
            "one streamed copy": lambda: native.copy_crc32c(to, come, have.nbytes, 2),
            "engine, passed descriptor": engine.here,
        }
        seconds = take_turns(contenders, repeats=repeats)
        yield from figures("same machine", have.nbytes, seconds, "one streamed copy", 0.8)
        engine.server.close()


def to_four(have: Memory, want: Memory, repeats: int) -> Iterator[Row]:
    engine = Engine(have, want)
    with Chain(have, engine) as chain:
        seconds = take_turns({"raw": chain.raw, "engine": chain.engine}, repeats=repeats)
        sent = engine.server.counters()["sent_bytes"] / have.nbytes / (repeats + 1)
    engine.server.close()
    case = "chain to 4 processes"
    floor = row(SUITE, case, "raw sendfile chain", metric="time", unit="s", figures=seconds["raw"])
    goal = None if floor.median is None else 1.15 * floor.median
    yield floor
    yield row(
        SUITE,
        case,
        "engine",
        metric="time",
        unit="s",
        figures=seconds["engine"],
        floor=floor.median,
        goal=goal,
    )
    yield row(SUITE, case, "engine", metric="copies sent by the source", unit="1", figures=[sent], goal=1)


def checks(repeats: int) -> Iterator[Row]:
    block, key, number = os.urandom(MIB), bytes(32), bytes(12)
    contenders: dict[str, Callable[[], object]] = {
        "AES-256-GMAC": functools.partial(AESGCM(key).encrypt, number, b"", block),
        "Poly1305 (of ChaCha20-Poly1305)": functools.partial(
            ChaCha20Poly1305(key).encrypt, number, b"", block
        ),
        "AES-256-GCM, encrypting": functools.partial(AESGCM(key).encrypt, number, block, b""),
        "ChaCha20-Poly1305, encrypting": functools.partial(ChaCha20Poly1305(key).encrypt, number, block, b""),
        "HMAC-SHA256": functools.partial(hmac.digest, key, block, "sha256"),
        "BLAKE2b, keyed": lambda: hashlib.blake2b(block, key=key).digest(),
        "CRC-32C, no protection": lambda: native.crc32c(block),
    }
    many = {name: functools.partial(_often, call) for name, call in contenders.items()}
    for name, times in take_turns(many, repeats=repeats).items():
        rates = [64 * MIB / each / 1e9 for each in times]
        yield row(SUITE, "check of 1 MiB", name, metric="rate", unit="GB/s", figures=rates)


def _often(call: Callable[[], object]) -> None:
    for _ in range(64):
        call()


def rows(quick: bool) -> Iterator[Row]:
    repeats, nbytes = (2, 64 * MIB) if quick else (7, 512 * MIB)
    yield from checks(repeats)
    have, want = Memory(nbytes), Memory(nbytes)
    yield from over_loopback(have, want, repeats)
    yield from on_one_machine(have, want, repeats)
    yield from to_four(have, want, repeats)
    have.close()
    want.close()
