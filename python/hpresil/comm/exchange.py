"""How gradients travel: read where a rank can read them, through the group's connections between homes.

One reduction on one rank (`schedule` says who does what, `homes` who can read whom):

1. **Supply.** For each owner elsewhere whose partner we are, add up what our home has of the owner's chunk
   and send it; what one rank of the home has alone is sent from where it lies.
2. **Fold.** For each chunk we own, take in what other homes contribute, add it in tree order to what we read
   in our home, and send the result to our partner in each other home.
3. **Meet.** Once our result holds what we own and what we took in for others, say so to our home.
4. **Collect.** Copy the rest out of the results of our home's other ranks.

Chunk k is folded while chunk k + 1 travels. Nobody waits in a circle: what a rank does at place k of its
lists needs of others only what they do at smaller places. Everything that is waited for is point to point,
so a deadline or an interruption ends each wait, and nothing writes to a buffer after `release`.

Why nobody reads what its owner is changing: a node changes when its owner computes further slots, a result
when it reduces again or applies. Within a generation that takes the vote of everybody, which a reader gives
last. After an interruption it takes the next generation's decision, and so the report of every reader; a
reader that has reported can no longer hold a gradient of the old generation. What it reads then may be
torn, and is dropped.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from hpresil.base import spans
from hpresil.base.deadline import Deadline
from hpresil.comm import staging
from hpresil.comm.arithmetic import BLOCK, copy, vector
from hpresil.comm.folding import Finishing, Folding
from hpresil.comm.group import Group
from hpresil.comm.homes import Homes
from hpresil.comm.schedule import Chunk, Schedule
from hpresil.comm.small_messages import FOLDED, meet, start_squares
from hpresil.elastic.slots import Node

WINDOW = 3  # chunks that may be on their way to one owner


class Exchange:
    """One reduction on one rank: `run`, then `release`, in one thread, inside `plain_arithmetic`.

    Args:
        group: The group of this generation.
        plan: Who sends what to whom; the same on all ranks.
        homes: What this rank can read, after `Homes.agree`.
        out: Flat tensors for the result: 1-D, contiguous, float32 or float64, of whole blocks.
        finishing: What is done to the result.

    Attributes:
        arrived_bytes: What came from other homes.
        read_bytes: What was read in the memory of our home's other ranks.
    """

    def __init__(
        self, group: Group, plan: Schedule, homes: Homes, out: list[torch.Tensor], finishing: Finishing
    ) -> None:
        self._group, self._plan, self._homes, self._out = group, plan, homes, out
        self._way = plan.ways[group.rank]
        self._own = plan.chunks[group.rank]
        self._finishing = finishing
        self._folding = Folding(plan, group.rank, homes.nodes, out, finishing)
        self._foreign = len(self._way.visible) - homes.own_nodes
        self._works: list[Any] = []
        self._results: list[Any] = []
        self._arriving: deque[tuple[Chunk, dict[Node, torch.Tensor], list[Any]]] = deque()
        self._leaving: deque[tuple[list[torch.Tensor], list[Any]]] = deque()
        self._buffers: list[torch.Tensor] = []
        self._free: dict[torch.dtype, list[torch.Tensor]] = {}
        self.arrived_bytes = self.read_bytes = 0

    def run(self, deadline: Deadline) -> None:
        """Do all of it; `release` must follow, however this ends.

        Raises:
            PeerLost: A peer died or hung, or the group was interrupted; ``out`` is then undefined.
        """
        with spans.span("fold") as timed:
            self._add_up(deadline)
            timed.value = self.arrived_bytes
        if self._way.mates:
            with spans.span("collect") as timed:
                meet(self._group, self._way.mates, FOLDED, deadline)
                for mate in self._way.mates:
                    self._collect(mate, deadline)
                timed.value = self.read_bytes
        self._group.finish(self._works, deadline)

    def release(self) -> None:
        """Give the buffers back; first destroy the works that could still use them."""
        self._works.clear()
        self._results.clear()
        for _, _, works in self._arriving:
            works.clear()
        for _, works in self._leaving:
            works.clear()
        self._arriving.clear()
        self._leaving.clear()
        for buffer in self._buffers if not self._group.left_behind else ():
            staging.give(buffer)
        self._buffers.clear()

    def _add_up(self, deadline: Deadline) -> None:
        for chunk in self._own[:WINDOW]:
            self._expect(chunk)
        self._expect_results()
        for place in range(WINDOW):
            self._supply(place, deadline)
        lists = [self._own, *(self._plan.chunks[owner] for owner in self._way.served)]
        for place in range(max(map(len, lists))):
            for chunk in self._own[place : place + 1]:
                self._fold(chunk, deadline)
            for chunk in self._own[place + WINDOW : place + WINDOW + 1]:
                self._expect(chunk)
            self._supply(place + WINDOW, deadline)
        self._works += start_squares(self._group, self._finishing, self._out)
        self._group.finish(self._results, deadline)

    def _expect(self, chunk: Chunk) -> None:
        """Start to receive what other homes contribute to a chunk of ours."""
        parts: dict[Node, torch.Tensor] = {}
        works: list[Any] = []
        self._arriving.append((chunk, parts, works))  # first, so that `release` knows every work
        for peer, node in self._way.arriving:
            parts[node] = self._buffer(chunk)
            place = parts[node][: chunk.blocks * BLOCK]
            works.append(self._group.receive(place, peer, self._plan.part_tag(chunk, node)))
            self.arrived_bytes += place.nbytes

    def _expect_results(self) -> None:
        """Start to receive the chunks of the owners we are the partner of where they belong."""
        for owner in self._way.served:
            for chunk in self._plan.chunks[owner]:
                part = self._place(chunk)
                self._results.append(self._group.receive(part, owner, self._plan.result_tag(chunk)))
                self.arrived_bytes += part.nbytes

    def _supply(self, place: int, deadline: Deadline) -> None:
        """Start to send what our home contributes to the chunks at this place of the owners we serve."""
        if len(self._leaving) == WINDOW:
            buffers, works = self._leaving.popleft()
            self._group.finish(works, deadline)
            for buffer in buffers:
                self._free.setdefault(buffer.dtype, []).append(buffer)
        buffers, works = [], []
        self._leaving.append((buffers, works))  # first, so that `release` knows every work
        for owner in self._way.served:
            for chunk in self._plan.chunks[owner][place : place + 1]:
                self._check(deadline)
                for node in self._way.contributed:
                    self._send_part(chunk, node, owner, buffers, works)
                self.read_bytes += self._foreign * self._place(chunk).nbytes

    def _send_part(
        self, chunk: Chunk, node: Node, owner: int, buffers: list[torch.Tensor], works: list[Any]
    ) -> None:
        tag = self._plan.part_tag(chunk, node)
        if node in self._homes.nodes:
            whole = self._homes.nodes[node][chunk.flat]
            self._works.append(self._group.send(whole[chunk.elements], owner, tag))
            return
        buffers.append(self._buffer(chunk))
        part = buffers[-1][: chunk.blocks * BLOCK]
        self._folding.part(chunk, node, part)
        works.append(self._group.send(part, owner, tag))

    def _fold(self, chunk: Chunk, deadline: Deadline) -> None:
        """Wait for what other homes contribute to a chunk of ours, fold it, send the result to each home."""
        self._check(deadline)
        arrived, parts, works = self._arriving[0]
        assert arrived == chunk
        self._group.finish(works, deadline)
        self._arriving.popleft()
        self._folding.fold(chunk, parts)
        for buffer in parts.values():
            self._free.setdefault(buffer.dtype, []).append(buffer)
        part = self._place(chunk)
        self.read_bytes += self._foreign * part.nbytes
        for peer in self._way.partners:
            self._works.append(self._group.send(part, peer, self._plan.result_tag(chunk)))

    def _collect(self, mate: int, deadline: Deadline) -> None:
        """Copy what a mate owns, or took in for its home, out of its result."""
        theirs = self._homes.results[mate]
        for owner in (mate, *self._plan.ways[mate].served):
            for chunk in self._plan.chunks[owner]:
                self._check(deadline)
                part = self._place(chunk)
                copy(vector(part), vector(theirs[chunk.flat][chunk.elements]))
                self.read_bytes += part.nbytes

    def _place(self, chunk: Chunk) -> torch.Tensor:
        return self._out[chunk.flat][chunk.elements]

    def _check(self, deadline: Deadline) -> None:
        """Where nothing waits for a peer, a lost one has to be looked for."""
        if self._group.interrupted:
            raise self._group.lost(deadline.what, RuntimeError("the group is closed"))

    def _buffer(self, chunk: Chunk) -> torch.Tensor:
        like = self._out[chunk.flat]
        free = self._free.get(like.dtype)
        if free:
            return free.pop()
        buffer = staging.take(self._plan.chunk_blocks * BLOCK, like.dtype, like.device)
        self._buffers.append(buffer)
        return buffer
