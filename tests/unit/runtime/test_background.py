"""A copy that nobody waits for yet leaves the cores to those that somebody waits for."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

from hpresil.runtime import background


def niceness():
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_only_the_calling_thread_steps_back():
    def work():
        before = niceness()
        background.step_back()
        return before, niceness()

    with ThreadPoolExecutor(1) as pool:
        before, after = pool.submit(work).result()
    assert (before, after) == (niceness(), max(niceness(), background.NICE))
