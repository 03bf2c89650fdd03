"""The floor of a transfer: bytes of a memory file through TCP by sendfile, unchecked, into a mapping."""

from __future__ import annotations

import itertools
import os
import socket
import threading

PIECE = 1 << 20
ACCEPT_S = 60.0


def listener() -> socket.socket:
    door = socket.create_server(("127.0.0.1", 0))
    door.settimeout(ACCEPT_S)
    return door


def send(sock: socket.socket, fd: int, begin: int, end: int) -> None:
    while begin < end:
        begin += os.sendfile(sock.fileno(), fd, begin, min(PIECE, end - begin))


def receive(sock: socket.socket, view: memoryview, begin: int, end: int) -> None:
    while begin < end:
        got = sock.recv_into(view[begin : min(begin + PIECE, end)], 0, socket.MSG_WAITALL)
        if got == 0:
            raise ConnectionError("the other side hung up")
        begin += got


def loopback(fd: int, view: memoryview, streams: int) -> None:
    """Send a whole file to a mapping over ``streams`` connections, a thread at each end of each."""
    nbytes = len(view)
    cuts = [nbytes * i // streams for i in range(streams + 1)]
    threads, sockets = [], []
    with listener() as door:
        for begin, end in itertools.pairwise(cuts):
            near = socket.create_connection(door.getsockname())
            far, _ = door.accept()
            sockets += [near, far]
            threads.append(threading.Thread(target=send, args=(far, fd, begin, end)))
            threads.append(threading.Thread(target=receive, args=(near, view, begin, end)))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for sock in sockets:
        sock.close()


def hop(door: socket.socket, before: int, last: bool, fd: int, view: memoryview) -> None:
    """Receive from the one before and send on, piece by piece."""
    with socket.create_connection(("127.0.0.1", before)) as come:
        after = None if last else door.accept()[0]
        for begin in range(0, len(view), PIECE):
            end = min(begin + PIECE, len(view))
            receive(come, view, begin, end)
            if after is not None:
                send(after, fd, begin, end)
        if after is not None:
            after.close()
