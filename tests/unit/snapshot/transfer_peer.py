"""One end of a transfer in a process of its own, to be killed: `transfer_peer.py serve|fetch …`.

serve SEED NBYTES                       prints its port, serves until it is killed
fetch SEED NBYTES PORT [PORT …]         prints its own port (it offers on), then "right" or what failed
"""

from __future__ import annotations

import sys
import time

from transfer_case import MemoryFrame, content, fetch, serving, source


def serve(seed: int, nbytes: int) -> None:
    with serving(MemoryFrame(nbytes, content(nbytes, seed))) as server:
        print(server.port, flush=True)
        time.sleep(120)


def receive(seed: int, nbytes: int, ports: list[int]) -> None:
    frame = MemoryFrame(nbytes)
    with serving() as server:
        running = fetch(frame, *(source(port, str(port)) for port in ports), stall_s=3.0, appear_s=3.0)
        server.offer_arriving(running)
        print(server.port, flush=True)
        assert running.wait(60)
        state = running.outcome().state
        right = state == "done" and frame.bytes() == content(nbytes, seed)
        print("right" if right else f"{state} {running.outcome().sources}", flush=True)
        time.sleep(60)


if __name__ == "__main__":
    what, seed, nbytes, *ports = sys.argv[1:]
    if what == "serve":
        serve(int(seed), int(nbytes))
    else:
        receive(int(seed), int(nbytes), [int(port) for port in ports])
