"""A worker that changes its held memory for ever, or kills itself at a named point: PATH GENERATION POINT.

First it looks at what the one before it has left: what is sealed must be whole.
"""

import os
import signal
import sys
from pathlib import Path

from hpresil import native
from hpresil.snapshot import HeldPlace, held_messages as m

SIZES = {"parameters": 3 << 20, "optimizer": (5 << 20) + 7}


def main() -> None:
    path, generation, point = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    version = generation * 1000

    def reached(here: str) -> None:
        # From the second version on: until then nothing has been sealed that could be taken for whole.
        if here == point and (version > generation * 1000 + 1 or here == "allocated"):
            os.kill(os.getpid(), signal.SIGKILL)

    place = HeldPlace(path, place=1, generation=generation, device=native.HOST_DEVICE)
    there = {row.name: row.version for row in place.rows()}
    if m.UNSEALED not in there.values() and there:
        found = place.open_sealed(list(there))
        for one in found.memory.values():
            assert bytes(one) == bytes([found.version % 251]) * one.nbytes, f"{found.version} is torn"
        del one, found
    memory = {n: place.open(n) if n in there else place.allocate(n, SIZES[n]) for n in SIZES}
    reached("allocated")
    while True:
        version += 1
        place.change(list(SIZES))
        reached("changed")
        for name, one in memory.items():
            memoryview(one)[:] = bytes([version % 251]) * SIZES[name]
            reached(f"{name} written")
        place.seal(version, memory)
        reached("sealed")


main()
