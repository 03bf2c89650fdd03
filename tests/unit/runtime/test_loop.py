"""How long a worker may wait for its turn."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any, cast

from hpresil.base.config import Config
from hpresil.membership import messages as m
from hpresil.runtime.engine import Engine
from hpresil.runtime.loop import Loop


def test_a_spare_may_wait_longer_than_any_decision_takes() -> None:
    config = Config(slots=2, collective_timeout_s=1.0, min_workers_timeout_s=0.0)
    engine = Engine(worker=0, config=config, send=lambda said: None, page=None, hostname="127.0.0.1")
    trainer = cast(Any, SimpleNamespace(engine=engine))
    nobody = cast(Any, None)
    loop = Loop(trainer, nobody, newcomer=nobody, facts={}, resume=None)
    turns: list[str] = []
    done = threading.Event()

    def wait() -> None:
        try:
            turns.append(loop._turn(5))
        except Exception as error:
            turns.append(repr(error))
        done.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert not done.wait(1.5), "a spare outlives the limit of a decision"
    engine.handle(m.View(generation=1, members=[0]))
    assert not done.wait(0.3), "the limit begins with the view"
    engine.handle(m.Decision(generation=1, target=0, sources={}, roll=[], slots=[[0, 1]], initial=True))
    assert done.wait(5)
    assert turns == ["step"]
    thread.join(5)
    engine.groups.close()
