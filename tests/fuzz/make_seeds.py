"""Write the seeds of those fuzz targets whose inputs follow a layout of the core: `python make_seeds.py`.

To be run again when the layout of the liveness page changes (csrc/liveness/layout.h); the page's seeds are
refused at once otherwise, and tests/unit/native/test_fuzz_seeds.py fails.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path

HERE = Path(__file__).parent
LAYOUT = HERE.parents[1] / "csrc/liveness/layout.h"
OWNER_DIED, WAITERS = 0x40000000, 0x80000000


def page(
    *,
    layout: int | None = None,
    life: int = 0,
    signal: int = 0,
    generation: int = 0,
    stamps: int = 0,
    records: tuple[tuple[int, int, int, int], ...] = ((0, 0, 0, 0), (0, 0, 0, 0)),
    beats: tuple[int, int] = (0, 0),
) -> bytes:
    """Return a liveness page up to its last field; its file is longer, and zero behind that."""
    if layout is None:
        (known,) = re.findall(r"kPageLayout = (\d+)", LAYOUT.read_text())
        layout = int(known)
    fields = {
        0: struct.pack("<8sI", b"HIRPAGE1", layout),
        64: struct.pack("<II", life, signal),
        128: struct.pack("<I", generation),
        192: struct.pack("<Q8q", stamps, *records[0], *records[1]),
        320: struct.pack("<2q", *beats),
    }
    content = bytearray(336)
    for offset, packed in fields.items():
        content[offset : offset + len(packed)] = packed
    return bytes(content)


def library(symbols: list[tuple[str, int, int]], *, dynamic: bool = False) -> bytes:
    """Return a shared library of nothing but a segment and a table of functions: name, place, bytes."""
    names, table = b"\0", bytes(24)
    text = 0x200
    for name, place, nbytes in symbols:
        table += struct.pack("<IBBHQQ", len(names), 0x12, 0, 1, 0x10000 + text + place, nbytes)
        names += name.encode() + b"\0"
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x10000, 0x10000, 0x1000, 0x1000, 0x1000)
    at = 64 + len(segment)
    table_at, names_at = at, at + len(table)
    sections_at = names_at + len(names)
    sections = bytes(64)
    sections += struct.pack("<IIQQQQIIQQ", 0, 11 if dynamic else 2, 0, 0, table_at, len(table), 2, 0, 8, 24)
    sections += struct.pack("<IIQQQQIIQQ", 0, 3, 0, 0, names_at, len(names), 0, 0, 1, 0)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    head = ident + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, sections_at, 0, 64, 56, 1, 64, 3, 0)
    return head + segment + table + names + sections


def places(*offsets: int) -> bytes:
    """Return what stands before the file: the places to be named."""
    return struct.pack("<4H", *offsets)


def seeds() -> dict[str, bytes]:
    """Return the seeds, by path below corpus/."""
    two = ((4, 5, 6, 7), (1, 2, 3, 4))
    functions = [("_ZN7hpresil4workEi", 0, 64), ("main", 64, 32), ("_Z1fISt6vectorIiSaIiEEEvT_", 96, 8)]
    doubled = "_Z1f4pairIiiE" + "".join(f"S_IS{place}_S{place}_E" for place in "0123456789ABCDEF")
    asked = places(0x200, 0x241, 0x264, 0x30)
    whole = library(functions)
    return {
        "page/valid": page(generation=1, stamps=1, records=two, beats=(5, 6)),
        "page/held": page(life=WAITERS | 4242, generation=7, stamps=2, records=two, beats=(9, 0)),
        "page/ended": page(life=OWNER_DIED | 4242, signal=11, stamps=3, records=two),
        "page/fresh": page(),
        "page/other_layout": page(layout=1, generation=1, stamps=1, records=two),
        "page/foreign": b"\x7fELF",
        "elf_symbols/library": asked + whole,
        "elf_symbols/stripped": asked + library(functions, dynamic=True),
        "elf_symbols/doubled": places(0, 0, 0, 0x200) + library([(doubled, 0, 8)]),
        "elf_symbols/cut_off": asked + whole[:-70],
        "elf_symbols/empty": places(0, 0, 0, 0),
        "elf_symbols/no_library": places(1, 2, 3, 4) + b"#!/bin/sh\n",
    }


if __name__ == "__main__":
    for name, content in seeds().items():
        path = HERE / "corpus" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
