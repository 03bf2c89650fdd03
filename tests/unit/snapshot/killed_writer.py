"""Kills a process that fills frames, at random moments and many times, and looks at what it has left.

    killed_writer.py KILLS SEED

Each life of the writer is a forked child. Two frames; version v is a state whose every word is v. Prints how
often the kill hit a frame that was being filled, and exits with 1 if a frame was torn
or a version is gone.
"""

import mmap
import os
import random
import signal
import struct
import sys
import time
from types import SimpleNamespace

from hpresil import native
from hpresil.snapshot import layout, preface

NBYTES = 1 << 20


def plan_of_one(nbytes):
    start = 8192
    spans = [preface.SectionSpan(start, nbytes, 1)] + [preface.SectionSpan(start + nbytes, 0, 0)] * 3
    return SimpleNamespace(
        frame_bytes=start + nbytes, manifest=b"one", rows=[None], sums_offset=4160, sections=spans
    )


def write(mappings, first, told):
    plan = plan_of_one(NBYTES)
    source = native.Mapping(native.memfd("source", NBYTES), NBYTES, populate=True)
    copier = native.Copier(2)
    with memoryview(source) as memory:
        for version in range(first, first + 100_000):
            memory[:] = struct.pack("<Q", version) * (NBYTES // 8)
            header = layout.header_of(plan, version=version).packed()
            copier.begin(
                mappings[version % 2], header, plan.manifest, [0], [(source.address, 8192, NBYTES, 0)]
            )
            over, sealed, _, _ = copier.wait(60.0)
            assert (over, sealed) == (True, True)
            told[:8] = struct.pack("<Q", version)


def look(mapping):
    """Return the version in a frame, None for a frame without a seal; SystemExit if it is torn."""
    version = native.sealed_version(mapping)
    if version is None:
        return None
    with memoryview(mapping) as memory:
        if memory[8192 : 8192 + NBYTES] != struct.pack("<Q", version) * (NBYTES // 8):
            raise SystemExit(f"the frame of version {version} is torn")
        (found,) = struct.unpack_from("<I", memory, 4160)
    if native.crc32c(mapping.address + 8192, NBYTES) != found:
        raise SystemExit(f"the checksum of version {version} is wrong")
    return version


def main(kills, seed):
    chance = random.Random(seed)
    size = 8192 + NBYTES
    mappings = [native.Mapping(native.memfd("frame", size), size, populate=True) for _ in range(2)]
    told = mmap.mmap(-1, 4096)
    version = hit = 0
    for kill in range(kills):
        child = os.fork()
        if child == 0:
            try:
                write(mappings, version + 1, told)
            finally:
                os._exit(1)
        if kill == 0 or chance.random() < 0.8:  # a life that comes to something; the others end at its start
            deadline = time.monotonic() + 60
            while struct.unpack("<Q", told[:8])[0] <= version and time.monotonic() < deadline:
                time.sleep(0.0002)
        time.sleep(chance.uniform(0.0, 0.003))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            raise SystemExit("the writer ended by itself")
        found = [look(mapping) for mapping in mappings]
        (sealed,) = struct.unpack("<Q", told[:8])
        newest = max((one for one in found if one is not None), default=-1)
        if newest < sealed:
            raise SystemExit(f"version {sealed} was sealed and is gone: {found}")
        hit += None in found
        version = newest
    print(f"{kills} kills, {hit} while a frame was being filled, {version} versions")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
