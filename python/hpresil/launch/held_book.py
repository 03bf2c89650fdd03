"""Which device memory is held for whom, and what is known to be whole: bookkeeping without sockets.

Rules:

1. A place belongs to one process, until the *process* has ended, not its connection: what it has queued may
   write for as long as it lives. Then another one may have it, of the same generation or a newer one.
2. Memory is sealed (version, checksum) only between a `seal` and the next `change`, which is answered before
   the first byte changes. So whoever dies between the two leaves memory that nobody takes for whole.
3. One `seal` covers all its names at once, so that no death leaves two versions that look like one.
4. What is denied has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hpresil.native import HeldMemory
from hpresil.snapshot.held_messages import MAX_ALLOCATIONS, UNSEALED, Denied, Kind, Row


class NotGranted(Exception):
    """A request cannot be granted; ``answer`` says why."""

    def __init__(self, kind: Kind, why: str) -> None:
        super().__init__(why)
        self.answer = Denied(kind=kind, why=why)


@dataclass(frozen=True)
class Tenant:
    """Who asks: a process at a place since a generation."""

    process: int
    place: int
    generation: int


@dataclass
class _Held:
    memory: HeldMemory
    nbytes: int
    generation: int = -1
    version: int = UNSEALED
    checksum: int = 0


@dataclass
class _Home:
    tenant: Tenant | None = None
    newest: int = -1  # generation
    held: dict[str, _Held] = field(default_factory=dict)


class Book:
    """All allocations of one device.

    Args:
        make: Allocates device memory of so many bytes; raises NativeError.
        most_bytes: How much may be held at once, as it is allocated.
        unit: What an allocation is rounded up to a multiple of, in bytes.
    """

    def __init__(self, make: Callable[[int], HeldMemory], most_bytes: int, unit: int) -> None:
        self._make, self._most_bytes, self._unit = make, most_bytes, unit
        self._homes: dict[int, _Home] = {}

    def attach(self, tenant: Tenant) -> None:
        """Give a place to a process."""
        home = self._homes.setdefault(tenant.place, _Home())
        if tenant.generation < home.newest:
            raise NotGranted("stale", f"place {tenant.place} is of generation {home.newest} by now")
        if home.tenant is not None and home.tenant.process != tenant.process:
            raise NotGranted("busy", f"place {tenant.place} belongs to process {home.tenant.process}")
        home.tenant, home.newest = tenant, tenant.generation

    def process_ended(self, process: int) -> None:
        """Nothing of this process writes any more."""
        for place, home in list(self._homes.items()):
            if home.tenant is not None and home.tenant.process == process:
                home.tenant = None
                if not home.held:
                    del self._homes[place]

    def allocate(self, tenant: Tenant, name: str, nbytes: int) -> tuple[Row, int]:
        """Make memory under a new name; answers as `open`."""
        home = self._home(tenant)
        everything = [held for one in self._homes.values() for held in one.held.values()]
        if name in home.held:
            raise NotGranted("misuse", f"{name} is there already; open it, or drop it first")
        if len(everything) >= MAX_ALLOCATIONS:
            raise NotGranted("room", f"there are {MAX_ALLOCATIONS} allocations; let tensors share one")
        used = sum(held.memory.allocated_bytes for held in everything)
        takes = -(-nbytes // self._unit) * self._unit
        if used + takes > self._most_bytes:
            raise NotGranted(
                "room", f"{used} of {self._most_bytes} bytes are held, {takes} more are too many"
            )
        held = _Held(self._make(nbytes), nbytes)
        fd = held.memory.export_fd()  # memory that cannot be passed on is not entered
        home.held[name] = held
        return _row(tenant.place, name, held), fd

    def open(self, tenant: Tenant, name: str) -> tuple[Row, int]:
        """Return what is known of an allocation, and a new descriptor, which the caller closes.

        Raises NativeError if the device does not pass it on.
        """
        (held,) = self._named(tenant, [name])
        return _row(tenant.place, name, held), held.memory.export_fd()

    def change(self, tenant: Tenant, names: Iterable[str]) -> None:
        """Nothing of these is whole from here on."""
        for held in self._named(tenant, names):
            held.version = UNSEALED

    def seal(self, tenant: Tenant, version: int, sums: Mapping[str, int]) -> None:
        """These are whole, all of the same version."""
        all_held = self._named(tenant, sums)
        for name, held in zip(sums, all_held, strict=True):
            if held.version != UNSEALED:
                raise NotGranted("misuse", f"{name} is sealed; say that it changes before it does")
        for held, checksum in zip(all_held, sums.values(), strict=True):
            held.generation, held.version, held.checksum = tenant.generation, version, checksum

    def drop(self, tenant: Tenant, name: str) -> None:
        """Let go of an allocation."""
        self._named(tenant, [name])
        del self._homes[tenant.place].held[name]

    def rows(self) -> tuple[Row, ...]:
        """Return what is held, for all places."""
        return tuple(
            _row(place, name, held)
            for place, home in sorted(self._homes.items())
            for name, held in home.held.items()
        )

    def _home(self, tenant: Tenant) -> _Home:
        home = self._homes.get(tenant.place)
        if home is None or home.tenant != tenant:
            raise NotGranted(
                "stale", f"place {tenant.place} is not process {tenant.process}'s of generation "
                f"{tenant.generation} any more"
            )  # fmt: skip
        return home

    def _named(self, tenant: Tenant, names: Iterable[str]) -> list[_Held]:
        home = self._home(tenant)
        for name in names:
            if name not in home.held:
                raise NotGranted("unknown", f"place {tenant.place} holds nothing named {name}")
        return [home.held[name] for name in names]


def _row(place: int, name: str, held: _Held) -> Row:
    return Row(
        place=place,
        name=name,
        nbytes=held.nbytes,
        generation=held.generation,
        version=held.version,
        checksum=held.checksum,
    )
