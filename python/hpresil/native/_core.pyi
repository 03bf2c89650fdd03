"""The extension module: csrc/, bound by csrc/bindings/. A test compares this file with it.

Every ``level`` names an instruction set ("portable", "sse4.2", "avx2", "avx512"); "" means the one in
use. Levels differ in speed, never in results.
"""

from collections.abc import Sequence
from types import TracebackType
from typing import Literal, TypedDict, overload

from typing_extensions import Buffer

from hpresil.base.errors import NativeError as NativeError

FloatType = Literal["f4", "f8"]

class BuiltWith(TypedDict):
    compiler: str
    build_type: str
    pybind11: str
    cuda: str
    cuda_architectures: str
    nvtx: bool

class CudaDevice(TypedDict):
    index: int
    name: str
    uuid: str
    capability: str
    memory_bytes: int
    multiprocessors: int
    driver_supports: str
    runtime: str

class CudaSelfTest(TypedDict):
    passed: bool
    copy_back_gbytes_per_s: float
    problem: str

# ------------------------------------------------------------------ memory files

def memfd(name: str, nbytes: int = 0) -> int:
    """Create a memory file of zeros and return its descriptor, which the caller closes.

    It is closed on exec and may be sealed; ``subprocess`` hands it on through ``pass_fds``.
    """

def seal(
    fd: int, *, shrink: bool = False, grow: bool = False, write: bool = False, seal: bool = False
) -> None:
    """Forbid what is named, for good and for every process; ``seal`` forbids further seals."""

def seals(fd: int) -> int:
    """Return the seals as ``fcntl.F_SEAL_*`` bits."""

class Mapping(Buffer):
    """A shared mapping of the first ``nbytes`` of a memory file, with the buffer protocol.

    ``populate`` faults every page in now: a first write into a cold page costs over ten times more.
    The descriptor may be closed afterwards.
    """

    def __init__(self, fd: int, nbytes: int, writable: bool = True, populate: bool = False) -> None: ...
    @property
    def address(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    def close(self) -> None:
        """Unmap. Raises NativeError while views (memoryview, tensors) into it are alive."""

    def __enter__(self) -> Mapping: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

# ------------------------------------------------------------------ checksums

@overload
def crc32c(address: int, nbytes: int, seed: int = 0, *, level: str = "") -> int:
    """Return the CRC-32C of ``nbytes`` at ``address``, following bytes whose CRC is ``seed``."""

@overload
def crc32c(data: Buffer, seed: int = 0, *, level: str = "") -> int:
    """Return the CRC-32C of a contiguous buffer, following bytes whose CRC is ``seed``."""

def crc32c_join(first: int, second: int, second_bytes: int) -> int:
    """Return the CRC of two pieces laid end to end from their own CRCs."""

def copy_crc32c(dst: int, src: int, nbytes: int, threads: int = 1, *, level: str = "") -> int:
    """Copy ``nbytes`` from ``src`` to ``dst`` (addresses, no overlap) and return their CRC-32C."""

def copy_many(pairs: Sequence[tuple[int, int, int]], threads: int = 1, *, level: str = "") -> list[int]:
    """Copy every (dst, src, nbytes) and return the CRC-32C of each; threads share the bytes evenly."""

# ------------------------------------------------------------------ ordered sums

def add_ordered(
    dst: int, sources: Sequence[int], count: int, dtype: FloatType, threads: int = 1, *, level: str = ""
) -> None:
    """Set ``dst[i] = ((s0[i] + s1[i]) + s2[i]) …``, plain IEEE adds that keep denormals.

    Addresses of ``count`` elements each; ``dst`` may be one of the sources.
    """

def square_sums(
    src: int, count: int, block: int, dtype: FloatType, threads: int = 1, *, level: str = ""
) -> list[float]:
    """Return the float64 sum of squares of each run of ``block`` elements, in a fixed order.

    Element i of a block belongs to lane i mod 16; lanes add in ascending order and are folded as
    j += j + 8, 4, 2, 1. The last block may be shorter.
    """

# ------------------------------------------------------------------ liveness

class PageState:
    """What a page says at one moment. Times are monotonic nanoseconds, 0 before the first stamp."""

    def __init__(
        self,
        *,
        held: bool = False,
        fatal_signal: int = 0,
        phase: int = 0,
        step: int = -1,
        slot: int = -1,
        stamp_ns: int = 0,
        stamps: int = 0,
        generation: int = 0,
        ended: bool = False,
    ) -> None: ...
    @property
    def held(self) -> bool: ...
    @property
    def ended(self) -> bool: ...
    @property
    def fatal_signal(self) -> int: ...
    @property
    def phase(self) -> int: ...
    @property
    def step(self) -> int: ...
    @property
    def slot(self) -> int: ...
    @property
    def stamp_ns(self) -> int: ...
    @property
    def stamps(self) -> int: ...
    @property
    def generation(self) -> int: ...

class Page:
    """A liveness page: one per process life, shared by a worker and its agent."""

    @staticmethod
    def create() -> Page: ...
    @staticmethod
    def attach(fd: int) -> Page:
        """Map the page behind ``fd``, which stays the caller's to close."""

    @property
    def fd(self) -> int: ...
    @property
    def generation(self) -> int: ...
    def hold(self) -> None:
        """Start the native thread whose end is the death notice; returns once it holds the page."""

    def give_notice(self) -> None:
        """End that thread, which tells every watch to fence this worker."""

    def install_fatal_handlers(self) -> None:
        """Mark the page when a fatal signal arrives, then go on as before. Call on the main thread.

        Also forbids core dumps, unless the environment says ``HPRESIL_CORE=1``.
        """

    def stamp(self, phase: int, step: int, slot: int) -> None:
        """Publish where the worker is. Has no effect in a forked child."""

    def arm_interrupt(self, generation: int, fds: Sequence[int]) -> None:
        """Shut these connected sockets down once the generation rises above ``generation``.

        Done by the native thread, without the GIL; at once if it is above already. Needs `hold`.
        """

    def disarm_interrupt(self) -> bool:
        """Forget the sockets; none is touched after the return. Returns whether they were shut down."""

    def set_generation(self, generation: int) -> None:
        """Raise the generation; a lower value has no effect."""

    def read(self) -> PageState: ...
    def wait_generation(self, above: int, timeout_s: float) -> int:
        """Return the generation once it is above ``above``, or whatever it is after ``timeout_s``."""

class DeathWatch:
    """Tells of the end of a page's worker through an eventfd. Until `Page.hold`, use a pidfd too."""

    def __init__(self, page: Page) -> None: ...
    @property
    def fd(self) -> int:
        """Readable, for good, once the worker ended; -1 after `close`."""

    @property
    def noticed_ns(self) -> int:
        """Monotonic nanoseconds at which the native thread saw the end; 0 before."""

    def reason(self) -> str | None:
        """Return "mutex" (the process or its thread ended), "signal N" (it is being killed) or None."""

    def close(self) -> None:
        """End the native thread within a second and close `fd`. Forget `fd` elsewhere before."""

    def __enter__(self) -> DeathWatch: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

def forbid_core_dumps() -> None:
    """Write no core file for this process, to a file or a pipe."""

# ------------------------------------------------------------------ transfers between agents

FlatSource = tuple[str, list[tuple[str, str, int]], str]
"""A source's name; its routes as (address to leave by or "", host, port); its Unix socket or ""."""

class FetchReport(TypedDict):
    received_bytes: int
    breaks: int
    reasons: dict[str, int]
    last_error: str
    measured_bytes_per_s: dict[str, float]
    route: str

class FrameServer:
    """Offers frames to other agents. Use `hpresil.snapshot.transfer`, which describes everything."""

    def __init__(
        self,
        secret: bytes,
        job: str,
        *,
        host: str = "",
        port: int = 0,
        unix_path: str = "",
        handshake_s: float = 5.0,
        stall_s: float = 10.0,
        idle_s: float = 60.0,
        most_waiting: int = 256,
        most_clients: int = 256,
    ) -> None: ...
    @property
    def port(self) -> int: ...
    def offer(
        self,
        generation: int,
        version: int,
        fd: int,
        nbytes: int,
        crc: int | None = None,
        *,
        address: int = 0,
        chunk_bytes: int = 1048576,
    ) -> int: ...
    def offer_arriving(self, fetch: FrameFetch) -> int: ...
    def withdraw(self, offer: int, timeout_s: float) -> bool: ...
    def refused(self) -> dict[str, int]: ...
    def counters(self) -> dict[str, int]: ...
    def close(self) -> None: ...

class FrameFetch:
    """One version on its way here. Use `hpresil.snapshot.transfer`, which describes everything."""

    def __init__(
        self,
        secret: bytes,
        job: str,
        generation: int,
        version: int,
        fd: int,
        nbytes: int,
        sources: Sequence[FlatSource],
        *,
        address: int = 0,
        chunk_bytes: int = 1048576,
        streams: int = 2,
        at_once: int = 1,
        window: int = 4,
        connect_s: float = 5.0,
        stall_s: float = 10.0,
        deadline_s: float = 600.0,
        appear_s: float = 0.0,
        copy_threads: int = 2,
        here: bytes = b"",
    ) -> None: ...
    @property
    def fd(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def elapsed_s(self) -> float: ...
    def wait(self, timeout_s: float) -> bool: ...
    def cancel(self) -> None: ...
    def here(self) -> bytes: ...
    def reports(self) -> list[FetchReport]: ...

def frame_bytes_at(
    secret: bytes,
    job: str,
    generation: int,
    version: int,
    source: Sequence[FlatSource],
    timeout_s: float,
    appear_s: float = 0.0,
) -> int:
    """Return the bytes of a version at one source."""

# ------------------------------------------------------------------ machine

def built_with() -> BuiltWith: ...
def cpu_level() -> str:
    """Return the instruction set in use: the machine's best, or ``HPRESIL_CPU_LEVEL``."""

def cpu_levels() -> list[str]:
    """Return those this machine can run, lowest first."""

def set_pdeathsig(signal: int) -> None:
    """Have the kernel send ``signal`` to this process when the *thread* that spawned it ends."""

def cuda_devices() -> list[CudaDevice]:
    """Return the devices; empty without CUDA in the build, a driver or a device. Creates no context."""

def cuda_self_test(index: int) -> CudaSelfTest:
    """Run a kernel on the device and compare what it wrote. Creates a context in this process."""

def cuda_register(address: int, nbytes: int) -> None:
    """Pin host memory for DMA by every context of this process."""

def cuda_unregister(address: int) -> None:
    """Undo `cuda_register`."""

def push_trace_range(name: str) -> None: ...
def pop_trace_range() -> None: ...
