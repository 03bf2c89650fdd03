"""Processes of a bench, one a rank: what each says in each turn, with a deadline for every wait."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

END_S = 10.0


class RankFailed(RuntimeError):
    """A rank has said nothing for too long, or has ended badly; the message says which."""


def said(
    main: Callable[..., None], arguments: Sequence[Sequence[Any]], *, turns: int, within_s: float
) -> list[list[Any]]:
    """Run ``main(*arguments[rank], pipe)`` in a process for each rank; return what they send, by turn.

    Each sends one object in each turn. All have ended when this returns or raises.

    Args:
        main: What a rank does; a process that is spawned must be able to import it.
        arguments: Those of each rank.
        turns: How many objects each sends.
        within_s: How long a rank may take for a turn, its start included, and to end after the last one.

    Raises:
        RankFailed: One took longer, or did not end well.
    """
    context = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        ranks = []
        for each in arguments:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(target=main, args=(*each, theirs), daemon=True)
            process.start()
            theirs.close()
            stack.callback(_end, process)
            ranks.append((process, stack.enter_context(ours)))
        found = [[_next(rank, *one, within_s) for rank, one in enumerate(ranks)] for _ in range(turns)]
        for rank, (process, _) in enumerate(ranks):
            process.join(within_s)
            if process.exitcode != 0:
                how = f"ended with status {process.exitcode}, whose error is above,"
                if process.exitcode is None:
                    how = f"has not ended for {within_s:g} s"
                raise RankFailed(f"rank {rank} (process {process.pid}) {how} after its last turn")
    return found


def _next(rank: int, process: SpawnProcess, pipe: Connection, within_s: float) -> Any:
    if not pipe.poll(within_s):
        raise RankFailed(
            f"rank {rank} (process {process.pid}) has not done its turn for {within_s:g} s: it or a rank that"
            " it waits for hangs; run the bench again, with less beside it"
        )
    try:
        return pipe.recv()
    except EOFError:
        process.join(END_S)
        raise RankFailed(
            f"rank {rank} (process {process.pid}) ended with status {process.exitcode} before its turn was"
            " done; its error is above"
        ) from None


def _end(process: SpawnProcess) -> None:
    if process.is_alive():
        process.kill()
    process.join(END_S)
