"""The exchange of tree nodes through the group's connections, for peers whose memory cannot be read.

Parts are cut into chunks: chunk k is folded while chunk k+1 arrives, and a fixed number of receive
buffers circulates, which also keeps them in the cache. Everything is point to point, so a deadline
or an interruption ends each wait, and nothing writes to a buffer after `release`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from hpresil.base.deadline import Deadline
from hpresil.comm import staging
from hpresil.comm.arithmetic import BLOCK
from hpresil.comm.exchange import others, start_squares
from hpresil.comm.folding import Folding
from hpresil.comm.group import Group
from hpresil.comm.schedule import Chunk, Schedule
from hpresil.elastic.slots import Node

WINDOW = 3  # chunks that may be on their way to one owner


class Streaming:
    """One reduction on one rank: sends its nodes, folds what it owns, receives the rest."""

    def __init__(
        self,
        group: Group,
        plan: Schedule,
        folding: Folding,
        nodes: dict[Node, list[torch.Tensor]],
        out: list[torch.Tensor],
    ) -> None:
        self._group, self._plan, self._folding = group, plan, folding
        self._nodes, self._out = nodes, out
        self._works: list[Any] = []
        self._arriving: deque[tuple[Chunk, dict[Node, torch.Tensor], list[Any]]] = deque()
        self._buffers: list[torch.Tensor] = []
        self._free: dict[torch.dtype, list[torch.Tensor]] = {}

    def run(self, deadline: Deadline) -> None:
        """Do all of it; `release` must follow, however this ends."""
        own = self._plan.chunks[self._group.rank]
        for chunk in own[:WINDOW]:
            self._expect(chunk)
        self._send_parts()
        self._expect_results()
        for place, chunk in enumerate(own):
            self._fold(chunk, deadline)
            for peer in others(self._group):
                part = self._out[chunk.flat][chunk.elements]
                self._works.append(self._group.send(part, peer, self._plan.result_tag(chunk)))
            if place + WINDOW < len(own):
                self._expect(own[place + WINDOW])
        self._works += start_squares(self._group, self._folding, self._out)
        self._group.finish(self._works, deadline)

    def release(self) -> None:
        """Give the buffers back; first destroy the works that could still write to them."""
        self._works.clear()
        for _, _, works in self._arriving:
            works.clear()
        self._arriving.clear()
        for buffer in self._buffers if not self._group.left_behind else ():
            staging.give(buffer)
        self._buffers.clear()

    def _expect(self, chunk: Chunk) -> None:
        """Start to receive what others contribute to a chunk of ours."""
        parts: dict[Node, torch.Tensor] = {}
        works: list[Any] = []
        self._arriving.append((chunk, parts, works))  # first, so that `release` knows every work
        for peer in others(self._group):
            for node in self._plan.nodes[peer]:
                parts[node] = self._buffer(chunk)
                place = parts[node][: chunk.blocks * BLOCK]
                works.append(self._group.receive(place, peer, self._plan.part_tag(chunk, node)))

    def _send_parts(self) -> None:
        """Start to send our nodes, every owner's first chunk first."""
        peers = others(self._group)
        longest = max((len(self._plan.chunks[peer]) for peer in peers), default=0)
        for place in range(longest):
            for peer in peers:
                for chunk in self._plan.chunks[peer][place : place + 1]:
                    for node in self._plan.nodes[self._group.rank]:
                        part = self._nodes[node][chunk.flat][chunk.elements]
                        self._works.append(self._group.send(part, peer, self._plan.part_tag(chunk, node)))

    def _expect_results(self) -> None:
        """Start to receive the folded chunks of all other owners where they belong."""
        for peer in others(self._group):
            for chunk in self._plan.chunks[peer]:
                part = self._out[chunk.flat][chunk.elements]
                self._works.append(self._group.receive(part, peer, self._plan.result_tag(chunk)))

    def _fold(self, chunk: Chunk, deadline: Deadline) -> None:
        """Wait for what others contribute to a chunk, and fold it."""
        arrived, parts, works = self._arriving.popleft()
        assert arrived == chunk
        self._group.finish(works, deadline)
        self._folding.fold(chunk, parts)
        self._free.setdefault(self._out[chunk.flat].dtype, []).extend(parts.values())

    def _buffer(self, chunk: Chunk) -> torch.Tensor:
        like = self._out[chunk.flat]
        free = self._free.get(like.dtype)
        if free:
            return free.pop()
        buffer = staging.take(self._plan.chunk_blocks * BLOCK, like.dtype, like.device)
        self._buffers.append(buffer)
        return buffer
