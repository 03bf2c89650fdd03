"""What fuzz targets begin with follows the present layouts: a seed that is refused at once finds nothing."""

from __future__ import annotations

import os
import runpy
import struct
from pathlib import Path

import pytest

from hpresil import native
from hpresil.base.errors import NativeError

FUZZ = Path(__file__).parents[2] / "fuzz"
SEEDS = runpy.run_path(str(FUZZ / "make_seeds.py"))["seeds"]()


def attached(seed: bytes) -> native.PageState:
    """Give it to a process as a liveness page, as the target does."""
    page = native.Page.create()
    fd = native.memfd("seed", os.fstat(page.fd).st_size)
    try:
        os.pwrite(fd, seed, 0)
        native.seal(fd, shrink=True, grow=True, seal=True)
        return native.Page.attach(fd).read()
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", SEEDS)
def test_a_seed_is_what_the_script_makes(name: str) -> None:
    assert (FUZZ / "corpus" / name).read_bytes() == SEEDS[name], "run tests/fuzz/make_seeds.py"


def test_seeds_of_pages_are_pages_of_the_present_layout() -> None:
    valid, held, ended = (attached(SEEDS[f"page/{name}"]) for name in ("valid", "held", "ended"))
    assert (valid.stamps, valid.phase, valid.step, valid.slot, valid.stamp_ns) == (1, 1, 2, 3, 4)
    assert (valid.generation, valid.native_ns, valid.interpreter_ns) == (1, 5, 6)
    assert (held.held, held.ended, held.phase) == (True, False, 4)
    assert (ended.held, ended.ended, ended.fatal_signal) == (False, True, 11)
    assert attached(SEEDS["page/fresh"]).stamps == 0
    for refused in ("other_layout", "foreign"):
        with pytest.raises(NativeError, match=r"layout 1|is no liveness page"):
            attached(SEEDS[f"page/{refused}"])


def test_seeds_of_libraries_name_functions_where_the_target_looks() -> None:
    """As readelf would: the file's own tables lead to the names."""
    for name in ("library", "stripped"):
        seed = SEEDS[f"elf_symbols/{name}"]
        places, file = struct.unpack_from("<4H", seed), seed[8:]
        (sections_at,) = struct.unpack_from("<Q", file, 40)
        _, kind, _, _, table_at, nbytes, names = struct.unpack_from("<IIQQQQI", file, sections_at + 64)
        names_at, names_bytes = struct.unpack_from("<QQ", file, sections_at + 64 * names + 24)
        assert kind == {"library": 2, "stripped": 11}[name]
        offset, address = struct.unpack_from("<8xQQ", file, 64)
        found = []
        for at in range(table_at + 24, table_at + nbytes, 24):
            text, _, _, _, value, size = struct.unpack_from("<IBBHQQ", file, at)
            begin = value - address + offset
            if any(begin <= place < begin + size for place in places):
                found.append(file[names_at + text : names_at + names_bytes].split(b"\0")[0].decode())
        assert found == ["_ZN7hpresil4workEi", "main", "_Z1fISt6vectorIiSaIiEEEvT_"]
