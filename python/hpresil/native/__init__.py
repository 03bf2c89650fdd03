"""The only door to the native core: memory, checksums, ordered sums, the liveness page, transfers, devices.

The extension `_core` knows neither torch nor NumPy; tensors cross as addresses and byte counts, and
the caller keeps them alive meanwhile. Everything that can block or takes time releases the GIL. All
failures of the core are `hpresil.base.errors.NativeError`.

Not guaranteed: an address that does not hold what the caller says it holds is a crash, not an error.
"""

from __future__ import annotations

from hpresil.base.phases import PHASES
from hpresil.native._core import (
    DeathWatch,
    FrameFetch,
    FrameServer,
    Mapping,
    Page,
    PageState,
    add_ordered,
    built_with,
    copy_crc32c,
    copy_many,
    cpu_level,
    cpu_levels,
    crc32c,
    crc32c_join,
    cuda_devices,
    cuda_register,
    cuda_self_test,
    cuda_unregister,
    forbid_core_dumps,
    frame_bytes_at,
    memfd,
    seal,
    seals,
    set_pdeathsig,
    square_sums,
)
from hpresil.native.trace_range import show_spans

__all__ = [
    "PHASES",
    "DeathWatch",
    "FrameFetch",
    "FrameServer",
    "Mapping",
    "Page",
    "PageState",
    "add_ordered",
    "built_with",
    "copy_crc32c",
    "copy_many",
    "cpu_level",
    "cpu_levels",
    "crc32c",
    "crc32c_join",
    "cuda_devices",
    "cuda_register",
    "cuda_self_test",
    "cuda_unregister",
    "forbid_core_dumps",
    "frame_bytes_at",
    "memfd",
    "seal",
    "seals",
    "set_pdeathsig",
    "show_spans",
    "square_sums",
]
