"""CUDA graphs that hold collectives, captured again in each generation.

The problem: a captured collective belongs to the communicator it was captured with. Replayed in a later
generation it would wait for peers that are gone, and NCCL frees a communicator only after the last graph
that uses it. The design: what is kept is the work, not the graph. `drop` lets the graphs of a generation go,
before its communicators are closed, and the next `replay` captures the work anew, with the communicators that
it finds then.

Captured with ``capture_error_mode="thread_local"``: other threads of a worker copy snapshots meanwhile, and
what they ask of CUDA must not spoil the capture.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from hpresil.base.errors import UsageError


class Graph(Protocol):
    """What is used of `torch.cuda.CUDAGraph`."""

    def replay(self) -> None:
        """Enqueue what was captured in the current stream."""

    def reset(self) -> None:
        """Let it go, and what it holds of communicators and memory."""


Capture = Callable[[Callable[[], Any]], tuple[Graph, Any]]


@dataclass
class _Kept:
    work: Callable[[], Any]
    graph: Graph | None = None
    made: Any = None


class CollectiveGraphs:
    """Work by name, and its graphs in this generation. One thread, one device, one stream.

    Args:
        capture: Captures what the work enqueues, without running it; default: `torch.cuda.graph`, with memory
            of its own for each graph.
    """

    def __init__(self, capture: Capture | None = None) -> None:
        self._capture = capture or _captured
        self._kept: dict[str, _Kept] = {}

    def add(self, name: str, work: Callable[[], Any]) -> None:
        """Keep ``work`` under a name; nothing is captured yet.

        It enqueues the same operations whenever it is called, on the same memory, and asks for its
        communicators each time it is. It has run once outside of a graph before the first `replay`: libraries
        allocate at first use, which a capture does not allow.

        Raises:
            UsageError: There is work of that name.
        """
        if name in self._kept:
            raise UsageError(f"there is work named {name!r} already; its graphs are made again by themselves")
        self._kept[name] = _Kept(work)

    def replay(self, name: str) -> Any:
        """Enqueue the work as a graph and return what it returned when it was captured.

        Tensors in that were allocated during the capture. After a `drop` they are others, and those of before
        keep their memory as long as somebody has them.

        Raises:
            UsageError: There is no such work.
            RuntimeError: It cannot be captured; nothing was enqueued, and the next call tries again.
        """
        if name not in self._kept:
            raise UsageError(f"there is no work named {name!r}; there is: {sorted(self._kept) or 'none'}")
        kept = self._kept[name]
        if kept.graph is None:
            kept.graph, kept.made = self._capture(kept.work)
        kept.graph.replay()
        return kept.made

    def drop(self) -> int:
        """Let all graphs go and return how many there were; before communicators they use are closed.

        Waits for nothing: a replay under way must have ended or its communicators have been given up.

        Raises:
            RuntimeError: The first error of CUDA, once all were tried; none is replayed again in any case.
        """
        dropped, errors = 0, []
        for kept in self._kept.values():
            graph, kept.graph, kept.made = kept.graph, None, None
            if graph is not None:
                dropped += 1
                try:
                    graph.reset()
                except RuntimeError as error:
                    errors.append(error)
        if errors:
            raise errors[0]
        return dropped


def _captured(work: Callable[[], Any]) -> tuple[Graph, Any]:
    # A pool of its own: one whose last graph is gone takes no other as long as any tensor of it lives.
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        made = work()
    return graph, made
