"""One receiver of a chain, a process of its own: `python -m bench.micro.transfer_hop NBYTES`.

Prints its ports (raw, transfer), then does what each line on its input says and answers "done":
`raw BEFORE LAST` or `chain GENERATION BEFORE`.
"""

from __future__ import annotations

import sys

from bench.micro import raw_sendfile

from hpresil import native
from hpresil.snapshot.transfer import Fetch, FetchSettings, FrameServer, Route, ServerSettings, Source

SECRET, JOB = b"the secret of the bench", "bench"
STREAMS = 1


def chain(server: FrameServer, generation: int, before: int, fd: int, mapping: native.Mapping) -> None:
    source = Source("before", (Route("127.0.0.1", before),))
    how = FetchSettings(streams=STREAMS, appear_s=30)
    fetch = Fetch(SECRET, JOB, generation, 1, fd, mapping.nbytes, [source], settings=how, mapping=mapping)
    server.offer_arriving(fetch)
    fetch.wait(120)
    fetch.outcome().check()


def main() -> None:
    nbytes = int(sys.argv[1])
    fd = native.memfd("hop", nbytes)
    native.seal(fd, shrink=True)
    mapping = native.Mapping(fd, nbytes, populate=True)
    view = memoryview(mapping)
    view[:] = bytes(nbytes)
    server = FrameServer(SECRET, JOB, ServerSettings(host="127.0.0.1"))
    with raw_sendfile.listener() as door:
        print(door.getsockname()[1], server.port, flush=True)
        for line in sys.stdin:
            what, *args = line.split()
            if what == "raw":
                raw_sendfile.hop(door, int(args[0]), args[1] == "1", fd, view)
            else:
                chain(server, int(args[0]), int(args[1]), fd, mapping)
            print("done", flush=True)
    server.close()


if __name__ == "__main__":
    main()
