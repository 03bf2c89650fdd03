"""What a worker does all its life so that its agent can tell what it hangs in, should it hang.

A thread takes the interpreter lock once a second and leaves the time in the liveness page, and two signals
are answered with the stacks of all threads (`csrc/liveness/stack_signals.h`; Python's part by its fault
handler, which needs no interpreter lock). A beat costs some 40 µs of processor time.
"""

from __future__ import annotations

import faulthandler
import threading
import time

from hpresil.native import Page

BEAT_S = 1.0


def begin(page: Page) -> None:
    """Beat and answer from here on; ``page`` is held by this process.

    Raises:
        NativeError: The handlers cannot be installed.
    """
    signal_number, fd = page.install_stack_handlers()
    faulthandler.register(signal_number, file=fd, all_threads=True, chain=True)
    page.beat()
    threading.Thread(target=_beat, args=(page,), name="hpresil-beat", daemon=True).start()


def _beat(page: Page) -> None:
    while True:
        time.sleep(BEAT_S)
        page.beat()
