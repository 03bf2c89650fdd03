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

def stream_copy(dst: int, src: int, nbytes: int, threads: int = 1) -> None:
    """Copy like `copy_crc32c`, without the checksum: what this machine's streaming stores can do."""

def copy_many(pairs: Sequence[tuple[int, int, int]], threads: int = 1, *, level: str = "") -> list[int]:
    """Copy every (dst, src, nbytes) and return the CRC-32C of each; threads share the bytes evenly."""

def hash_block_bytes() -> int:
    """Return how many bytes a block of `block_hashes` has: 1 MiB."""

@overload
def block_hashes(address: int, nbytes: int, threads: int = 1, *, level: str = "") -> list[int]:
    """Return the 64-bit hash of each block of ``nbytes`` at ``address``, the last one possibly shorter.

    Equal to `cuda_block_hashes` of the same bytes. It finds damage and change, not intent.
    """

@overload
def block_hashes(data: Buffer, threads: int = 1, *, level: str = "") -> list[int]:
    """Return the 64-bit hash of each block of a contiguous buffer."""

# ------------------------------------------------------------------ codec

def xor_delta(dst: int, src: int, previous: int, nbytes: int, threads: int = 1, *, level: str = "") -> None:
    """Set ``dst[i] = src[i] ^ previous[i]``; its own inverse. ``dst`` may be exactly one of the sources.

    Raises NativeError for ranges that overlap otherwise.
    """

def shuffle(dst: int, src: int, nbytes: int, element_bytes: int, *, level: str = "") -> None:
    """Write the byte planes of elements of 1, 2, 4 or 8 bytes; what is left over stays at the end.

    Raises NativeError for ranges that overlap: it is not done in place.
    """

def unshuffle(dst: int, src: int, nbytes: int, element_bytes: int, *, level: str = "") -> None:
    """Undo `shuffle`."""

# ------------------------------------------------------------------ snapshots

def arena(name: str, nbytes: int) -> tuple[int, int, str]:
    """Create a memory file for a frame: huge pages where the machine has them, sealed against resizing.

    Returns its descriptor, which the caller closes, its size, and a note about its pages.
    """

def fault_in(address: int, nbytes: int, threads: int = 1) -> None:
    """Bring in every page of a writable shared mapping; NativeError if there is not enough memory."""

def may_raise_threads() -> bool:
    """Return whether background threads can be idle ones that are raised when somebody waits for them."""

def sealed_version(mapping: Mapping) -> int | None:
    """Return the version in a frame, None unless it is sealed, whole, and its tables are right."""

class Copier:
    """Background threads that fill one frame at a time.

    ``threads`` may be 0: then `wait` copies everything. ``share``: how much of a core each of them may use
    while nobody waits. begin, wait and cancel belong to one thread.
    """

    def __init__(self, threads: int = 1, share: float = 1.0) -> None: ...
    def begin(
        self,
        mapping: Mapping,
        header: bytes,
        manifest: bytes,
        sums: Sequence[int],
        sources: Sequence[tuple[int, int, int, int]],
    ) -> None:
        """Start to fill a frame and return.

        Args:
            mapping: All of it, writable; stays open meanwhile.
            header: As `hpresil.snapshot.preface.Header.packed` gives it; the checksums in it do not count.
            manifest: What goes behind it.
            sums: The checksum of every tensor, for those that are in the frame already.
            sources: (address, offset in the frame, bytes, place among the tensors) of all others. What lies
                there must neither change nor go until `wait` says that it is over.
        """

    def wait(self, timeout_s: float) -> tuple[bool, bool, int, int]:
        """Help until it is done: (it is over, the frame is sealed, bytes of the sources, copied by this
        thread)."""

    def cancel(self) -> None:
        """Begin no further part; the frame stays without a seal. `wait` says when it is over."""

    @property
    def idle(self) -> bool: ...

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

# ------------------------------------------------------------------ communicators

class Nccl:
    """The NCCL library, opened at run time: torch's own instance if there is one."""

    @staticmethod
    def open(name: str = "libnccl.so.2") -> Nccl:
        """Raises NativeError if it is missing or too old, with what to do."""

    @property
    def version(self) -> str: ...
    @property
    def origin(self) -> str: ...
    @property
    def features(self) -> list[str]:
        """Of scalable_init, shrink, revoke, grow, suspend: those it has, by version and symbol."""

    def unique_id(self) -> bytes:
        """Return a new id, 128 bytes, and listen for it in this process. Needs no device."""

    def begin(
        self, specs: Sequence[tuple[str, int, int, int, Sequence[bytes]]], device: int
    ) -> list[NcclCommunicator]:
        """Begin all (name, generation, rank, ranks, ids) at once on ``device``; returns before they are
        ready."""

    def join(
        self, name: str, generation: int, rank: int, ranks: int, id: bytes, seconds: float
    ) -> NcclCommunicator:
        """Join a communicator that grows, as a newcomer."""

class NcclCommunicator:
    """One rank's end. Every call has a deadline; once given up, all of them raise the first reason."""

    @property
    def name(self) -> str: ...
    @property
    def generation(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def ranks(self) -> int: ...
    @property
    def reason(self) -> str:
        """Why it was given up; "" while it was not."""

    def wait(self, what: str, seconds: float) -> None: ...
    def abort(self, reason: str, seconds: float) -> bool:
        """Give it up, from any thread; False if NCCL did not end in time and was left behind."""

    def close(self, seconds: float) -> bool:
        """Finish what was begun, with all ranks, and free it; False if it had to be aborted."""

    def run(
        self,
        groups: Sequence[Sequence[tuple[str, int, int, int, int]]],
        stream: int,
        what: str,
        seconds: float,
        wait: bool = True,
    ) -> None:
        """Run groups of (operation, source address, destination address, bytes, peer) in ``stream``.

        Those of a group go out together. ``wait``: until the device is done with them.
        """

    def revoke(self, seconds: float) -> None: ...
    def shrink(self, excluded: Sequence[int], generation: int, seconds: float) -> NcclCommunicator: ...
    def grow_id(self) -> bytes: ...
    def grow(self, ranks: int, id: bytes | None, generation: int, seconds: float) -> NcclCommunicator: ...
    def split(
        self, colour: int, domains: Sequence[str], name: str, rank: int, ranks: int, seconds: float
    ) -> NcclCommunicator | None: ...
    def suspend(self, seconds: float) -> None: ...
    def resume(self, seconds: float) -> None: ...

def finish_init(pending: Sequence[NcclCommunicator], seconds: float) -> None:
    """Wait until all are ready; if one is not, all are aborted and the first reason is raised."""

class CommitGate:
    """A float32 flag at ``flag`` (1: no, 0: yes) and an int64 ballot for each rank at ``ballots``."""

    def __init__(self, flag: int, ballots: int, ranks: int, *, host: bool) -> None: ...
    def close(self, generation: int, step: int, stream: int = 0) -> int:
        """Say no, clear the ballots, and return the ballot of this step: 64 bits, unsigned."""

    def open(self, stream: int = 0) -> None:
        """Say yes if all ballots are this step's. Once after each `close`."""

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
        native_ns: int = 0,
        interpreter_ns: int = 0,
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
    @property
    def native_ns(self) -> int:
        """Monotonic nanoseconds at which the worker's native thread ran last; 0 before it did."""

    @property
    def interpreter_ns(self) -> int:
        """Monotonic nanoseconds at which a thread of the worker had the GIL last; 0: none beats."""

class StackReport:
    """What a worker's threads said about where they stand."""

    @property
    def python(self) -> str:
        """Python's stacks, as its fault handler writes them; empty if it wrote nothing."""

    @property
    def told(self) -> bool:
        """Whether the fault handler came to its end."""

    @property
    def threads(self) -> int: ...
    @property
    def answers(self) -> int:
        """How many threads have said where they stand."""

    def describe(self) -> str:
        """Return the native stacks as text; reads symbol tables: some 10 ms of a processor."""

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

    def install_stack_handlers(self) -> tuple[int, int]:
        """Answer `ask_for_stacks`; return (signal, descriptor) for `faulthandler.register`, which chains."""

    def ask_for_stacks(self, pid: int) -> int:
        """Ask every thread of the page's worker ``pid`` where it stands; return how many there are.

        Those that can answer never go on: ask only a worker that is going to be killed.
        """

    def wait_for_stacks(self, pid: int, timeout_s: float) -> StackReport:
        """Return what the threads say, once all that can have answered, or after ``timeout_s``."""

    def beat(self) -> None:
        """Publish that the caller has the GIL. Has no effect in a forked child."""

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

def open_libcrypto() -> None:
    """Open the library that checks transfers. Raises NativeError, with what to install, if it is missing."""

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
        begin: int = 0,
        address: int = 0,
        chunk_bytes: int = 1048576,
    ) -> int: ...
    def offer_arriving(self, fetch: FrameFetch) -> int: ...
    def takers(self, offer: int) -> int: ...
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
        begin: int = 0,
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
) -> int | None:
    """Return the bytes of a version at one source, None if it is not there."""

# ------------------------------------------------------------------ machine

def built_with() -> BuiltWith: ...
def cpu_level() -> str:
    """Return the instruction set in use: the machine's best, or ``HPRESIL_CPU_LEVEL``."""

def cpu_levels() -> list[str]:
    """Return those this machine can run, lowest first."""

def attach_spans(fd: int) -> None:
    """Record what native code does from here on into the second trace of the memory behind ``fd``."""

def span_names() -> list[str]:
    """Return the names of native spans, which are those of NVTX ranges too."""

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

class SnapshotStream:
    """Copies device memory into host memory beside training, and hashes it on the device.

    What needs the device raises NativeError with CUDA's name for the failure; after an error that ends
    the context every call does. One thread at a time. Streams are handles
    (``torch.cuda.Stream.cuda_stream``).
    """

    def __init__(self, device: int) -> None: ...
    def register_memory(self, address: int, nbytes: int) -> bool:
        """Pin host memory for DMA. False, with a note, when the system refuses: copies are slower."""

    def unregister_memory(self, address: int) -> None: ...
    def set_copies(self, pairs: Sequence[tuple[int, int, int]]) -> None:
        """Say what each `begin` copies: (dst in host memory, src in device memory, nbytes).

        The same list again costs a comparison. Up to 64 bytes between small neighbours are overwritten.
        """

    def begin(self, after: int) -> None:
        """Copy once everything queued on the stream ``after`` so far is done. Does not wait."""

    def gate(self, next: int) -> None:
        """Hold what is queued on the stream ``next`` from here on until the copy is done. Does not wait."""

    def wait(self, timeout_s: float) -> bool:
        """Return whether the device writes no more. Raises what the copy failed with."""

    def hashes(self) -> list[list[int]]:
        """Return the `block_hashes` of each tensor of the last copy, which must be `complete`."""

    @property
    def complete(self) -> bool: ...
    @property
    def captures(self) -> int:
        """How often the list was captured as a CUDA graph."""

    @property
    def uses_graph(self) -> bool: ...
    @property
    def notes(self) -> list[str]:
        """What is done in a slower way, and why."""

def cuda_block_hashes(address: int, nbytes: int, stream: int = 0, timeout_s: float = 60.0) -> list[int]:
    """Return the hash of each block of device memory, after what is queued on ``stream``."""

def cuda_xor_delta(dst: int, src: int, previous: int, nbytes: int, stream: int = 0) -> None:
    """Queue `xor_delta` on device memory. Does not wait."""

def cuda_shuffle(
    dst: int, src: int, nbytes: int, element_bytes: int, back: bool = False, stream: int = 0
) -> None:
    """Queue `shuffle`, or with ``back`` `unshuffle`, on device memory. Does not wait."""

# ------------------------------------------------------------------ device memory that outlives a process

HOST_DEVICE: int
"""In place of a CUDA device: host memory that is passed and mapped the same way, as tests use it."""

class HeldMemory:
    """Device memory of at least ``nbytes``, without an address: to be passed to those who map it.

    It stays while this object, a descriptor of it or a mapping of it is anywhere. Creates no context.
    Thread-safe. Raises NativeError: no driver, no room, or a device that cannot pass memory.
    """

    def __init__(self, device: int, nbytes: int) -> None: ...
    @property
    def allocated_bytes(self) -> int: ...
    def export_fd(self) -> int:
        """Return a new descriptor of it, closed on exec, which the caller closes."""

class MappedDeviceMemory(Buffer):
    """Memory that was passed as ``fd``, mapped to be read and written, until nothing refers to this object.

    On a device torch and CuPy see it without a copy (``torch.as_tensor(memory, device="cuda")``) and keep it
    mapped. On `HOST_DEVICE` it has the buffer protocol instead. Unmapping waits for the device.
    ``nbytes`` is what `HeldMemory` was made with. The descriptor may be closed afterwards. Thread-safe.
    """

    def __init__(self, device: int, fd: int, nbytes: int) -> None: ...
    @property
    def device(self) -> int: ...
    @property
    def nbytes(self) -> int: ...
    @property
    def address(self) -> int: ...
    @property
    def __cuda_array_interface__(self) -> dict[str, object]: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...

def push_trace_range(name: str) -> None: ...
def pop_trace_range() -> None: ...
