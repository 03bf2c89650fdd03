"""The only door to the native core: memory, checksums, ordered sums, liveness, communicators, devices.

The extension `_core` knows neither torch nor NumPy; tensors cross as addresses and byte counts, and
the caller keeps them alive meanwhile. Everything that can block or takes time releases the GIL. All
failures of the core are `hpresil.base.errors.NativeError`.

Not guaranteed: an address that does not hold what the caller says it holds is a crash, not an error.
"""

from __future__ import annotations

from hpresil.base.phases import PHASES
from hpresil.native._core import (
    CommitGate,
    DeathWatch,
    Mapping,
    Nccl,
    NcclCommunicator,
    Page,
    PageState,
    SnapshotStream,
    add_ordered,
    block_hashes,
    built_with,
    copy_crc32c,
    copy_many,
    cpu_level,
    cpu_levels,
    crc32c,
    crc32c_join,
    cuda_block_hashes,
    cuda_devices,
    cuda_register,
    cuda_self_test,
    cuda_shuffle,
    cuda_unregister,
    cuda_xor_delta,
    finish_init,
    forbid_core_dumps,
    hash_block_bytes,
    memfd,
    seal,
    seals,
    set_pdeathsig,
    shuffle,
    square_sums,
    unshuffle,
    xor_delta,
)
from hpresil.native.trace_range import show_spans

__all__ = [
    "CommitGate",
    "DeathWatch",
    "Mapping",
    "Nccl",
    "NcclCommunicator",
    "PHASES",
    "Page",
    "PageState",
    "SnapshotStream",
    "add_ordered",
    "block_hashes",
    "built_with",
    "copy_crc32c",
    "copy_many",
    "cpu_level",
    "cpu_levels",
    "crc32c",
    "crc32c_join",
    "cuda_block_hashes",
    "cuda_devices",
    "cuda_register",
    "cuda_self_test",
    "cuda_shuffle",
    "cuda_unregister",
    "cuda_xor_delta",
    "finish_init",
    "forbid_core_dumps",
    "hash_block_bytes",
    "memfd",
    "seal",
    "seals",
    "set_pdeathsig",
    "show_spans",
    "shuffle",
    "square_sums",
    "unshuffle",
    "xor_delta",
]
