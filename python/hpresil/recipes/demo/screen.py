"""Shows a job's progress: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from hpresil.recipes.demo.progress import Progress

PLAIN_EVERY_STEPS = 10
LINES = 14


class Screen(Protocol):
    """Where progress goes; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def say(self, line: str) -> None:
        """Show one line that stays."""
        ...

    def update(self, progress: Progress) -> None:
        """Show the newest numbers."""
        ...


def screen(console: Console, title: str) -> Screen:
    """Return a live panel if ``console`` is a terminal, else something that prints lines."""
    return LivePanel(console, title) if console.is_terminal else PlainLines(console, title)


def headline(progress: Progress) -> str:
    """Return step, loss, speed and generation in one line."""
    if progress.step < 0:
        return f"generation {progress.generation} · no step yet"
    speed = f" · {progress.tokens_per_s:,.0f} tokens/s" if progress.tokens_per_s else ""
    return f"step {progress.step} · loss {progress.loss:.4f}{speed} · generation {progress.generation}"


def runs(slots: Sequence[int]) -> str:
    """Return ascending slot numbers in short: 0-2, 5."""
    parts: list[list[int]] = []
    for slot in slots:
        if parts and slot == parts[-1][-1] + 1:
            parts[-1].append(slot)
        else:
            parts.append([slot])
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)


class PlainLines:
    """One line for each thing that happened and for every tenth step."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._shown = -1

    def __enter__(self) -> Self:
        self._console.print(f"== {self._title}", highlight=False)
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, line: str) -> None:
        """Print ``line``."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def update(self, progress: Progress) -> None:
        """Print the numbers if enough steps have passed."""
        if progress.step // PLAIN_EVERY_STEPS > self._shown // PLAIN_EVERY_STEPS:
            self._shown = progress.step
            self.say("   " + headline(progress))


class LivePanel:
    """A panel that is redrawn: numbers, who carries which slots, what happened last."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._lines: deque[str] = deque(maxlen=LINES)
        self._progress: Progress | None = None
        self._live = Live(console=console, auto_refresh=False, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def say(self, line: str) -> None:
        """Add ``line`` to those that are shown."""
        self._lines.append(line)

    def update(self, progress: Progress) -> None:
        """Redraw with ``progress``."""
        self._progress = progress
        self._live.refresh()

    def _draw(self) -> Panel:
        parts: list[Table | Text] = []
        if self._progress is not None:
            parts = [Text(headline(self._progress), style="bold"), members(self._progress)]
        said = Text("\n".join(self._lines), style="dim")
        return Panel(Group(*parts, said), title=self._title, title_align="left")


def members(progress: Progress) -> Table:
    """Return a table of the workers: rank, worker, the slots it carries or what it does else."""
    table = Table(box=None, pad_edge=False)
    for column in ("rank", "worker", ""):
        table.add_column(column)
    for rank, (worker, slots) in enumerate(zip(progress.members, progress.carried(), strict=True)):
        bar = "".join("█" if slot in slots else "░" for slot in range(progress.slots))
        table.add_row(str(rank), str(worker), f"{bar} slots {runs(slots)}")
    for worker, state in sorted(progress.others.items()):
        table.add_row("-", str(worker), state)
    return table
