"""Contenders take turns, so that a busy neighbour meets all of them: A B C, A B C."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from bench.contenders import Contender, environment, launched

Figures = TypeVar("Figures")


def take_turns(
    contenders: Sequence[Contender], measure: Callable[[Contender], Figures], *, repeats: int, warm_up: int
) -> tuple[dict[str, list[Figures]], dict[str, str]]:
    """Measure each ``warm_up + repeats`` times; return the figures that count, and why others have none.

    A contender that fails once is not tried again.
    """
    taken: dict[str, list[Figures]] = {}
    why: dict[str, str] = {}
    for turn in range(warm_up + repeats):
        for contender in contenders:
            if contender.name in why:
                continue
            try:
                figures = measure(contender)
            except (launched.Failed, environment.Unavailable, ValueError) as error:
                why[contender.name] = str(error).splitlines()[0]
                taken.pop(contender.name, None)
            else:
                if turn >= warm_up:
                    taken.setdefault(contender.name, []).append(figures)
    return taken, why
