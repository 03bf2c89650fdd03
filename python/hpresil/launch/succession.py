"""What an agent does when the coordinator is gone: its workers go on training, and it finds the next one.

The agents that are left ask each other. One that is still bound to a coordinator says where that is; of the
others, the one that joined first stands first. With the votes of more than half of the quorum, or with the
lease, it makes a coordinator from the newest copy of the state among the voters and tells everybody (see
`membership.quorum` and `gathering` for why there are never two). An agent without a way to any coordinator
waits and says so: its workers commit nothing that the others do not commit too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hpresil.base.deadline import now
from hpresil.base.errors import ConfigError, TransferFailed
from hpresil.launch.cluster import Cluster
from hpresil.launch.lease import Lease
from hpresil.launch.peers import Peers
from hpresil.launch.standing import Standing, newest
from hpresil.membership import door, messages as m, quorum
from hpresil.membership.client import Client
from hpresil.membership.machine import decode_state
from hpresil.membership.peer_messages import Elected, Stand, Vote
from hpresil.membership.server import Server
from hpresil.membership.state import State

log = logging.getLogger(__name__)

TURN_S = 0.25
ANSWER_S = 1.0
ANNOUNCE_S = 1.0
JOIN_S = 3.0


@dataclass(frozen=True)
class Office:
    """How this agent becomes the coordinator's host, and ceases to be.

    Attributes:
        socket: Where a coordinator of this node listens.
        open: Makes the coordinator here, from a copy of the state, for a term; agents come in at an address,
            and events are told by a clock that differs from this machine's.
        close: Ends it.
    """

    socket: Path
    open: Callable[[m.StateCopy, int, str, float], Awaitable[Server]]
    close: Callable[[], Awaitable[None]]


class Succession:
    """One agent's part in finding the next coordinator.

    Args:
        cluster: Where this node stands.
        lease: The lock that makes a coordinator; None: the votes do.
        client: Its connection to the coordinator.
        peers: Its way to the other agents.
        address: Where they reach it.
        introduction: Returns what this agent says to a coordinator first.
        accepted: Called with a coordinator's answer to that.
        office: For the case that the coordinator is to live here.
    """

    def __init__(
        self,
        cluster: Cluster,
        lease: Lease | None,
        client: Client,
        peers: Peers,
        address: str,
        *,
        introduction: Callable[[], m.AgentJoined],
        accepted: Callable[[m.Accepted], None],
        office: Office,
    ) -> None:
        self._cluster, self._lease, self._client = cluster, lease, client
        self._node, self._address = cluster.node, address
        self._introduction, self._accepted, self._office = introduction, accepted, office
        self._announcing: asyncio.Task[None] | None = None
        self.peers = peers
        self.standing = Standing()
        peers.stood = lambda stand: self.standing.answer(stand, now())

    async def next(self, limit_s: float) -> bool:
        """Return once this agent is bound to a coordinator again; False if there is none in time."""
        standing, begun = self.standing, now()
        standing.bound = ""
        state = decode_state(standing.copy.state) if standing.copy else None
        if standing.elected is None and (state is None or not state.quorum):
            return False  # nothing was trained: the job ends
        turn = self._turn(state) if state else 0
        pause_s = TURN_S * turn
        while now() - begun < limit_s:
            if await self._elected(pause_s * (0.75 + 0.5 * random.random())):  # not in step with another
                return True
            if standing.copy is not None and await self._round(standing.copy):
                return True
            pause_s = TURN_S * (1 + turn)
        return False

    def _turn(self, state: State) -> int:
        """Return how many of the agents that are left joined before this one."""
        left = sorted((n for n in state.nodes.values() if n.name != state.host), key=lambda n: n.order)
        names = [node.name for node in left]
        return names.index(self._node) if self._node in names else len(names)

    async def _elected(self, pause_s: float) -> bool:
        """Wait for somebody else to be elected, and join it."""
        standing = self.standing
        try:
            async with asyncio.timeout(pause_s):
                await standing.news.wait()
        except TimeoutError:
            return False
        standing.news.clear()
        return standing.elected is not None and await self._join(standing.elected.address)

    async def _round(self, copy: m.StateCopy) -> bool:
        """Stand once: join the coordinator if somebody has one, become it if enough want that."""
        state = decode_state(copy.state)
        stand = Stand(node=self._node, term=max(self.standing.term, copy.term) + 1)
        own = self.standing.answer(stand, now())
        others = {n.name: n.address for n in state.nodes.values() if n.name != self._node}
        answers = await asyncio.gather(*(self._ask(address, stand) for address in others.values()))
        votes = {name: vote for name, vote in zip(others, answers, strict=True) if vote is not None}
        for vote in votes.values():
            if vote.coordinator and vote.term >= self.standing.term and await self._join(vote.coordinator):
                return True
        voters = [name for name, vote in votes.items() if vote.granted]
        if own.granted:
            voters.append(self._node)
        copies = [copy, *(vote.copy for vote in votes.values() if vote.granted and vote.copy)]
        best = newest(copies)
        if not self._may(decode_state(best.state), voters):
            if own.granted:
                self.standing.withdraw()
            return False
        term = max(stand.term, best.term + 1, self._lease.next_term() if self._lease is not None else 0)
        log.info("elected for term %d by %s", term, ", ".join(voters))
        return await self._host(best, term, {name: others[name] for name in voters if name in others})

    def _may(self, state: State, voters: list[str]) -> bool:
        if state.settings.leased:
            return self._lease is not None and self._lease.take()
        return quorum.wins(state, voters)

    async def _ask(self, address: str, stand: Stand) -> Vote | None:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self.peers.stand(address, stand)
        except TimeoutError:
            return None

    async def _join(self, address: str) -> bool:
        """Bind this agent to the coordinator at ``address``, unless it is older than the last one."""
        host, _, port = address.rpartition(":")
        try:
            async with asyncio.timeout(JOIN_S):
                self._client.connected(*await door.call(host, int(port), self._cluster.credentials, JOIN_S))
                self._client.join(self._introduction())
                answer = await anext(aiter(self._client))
        except (OSError, ValueError, TimeoutError, ConfigError, TransferFailed, StopAsyncIteration) as error:
            answer, why = None, repr(error)
        else:
            why = str(answer)
        if isinstance(answer, m.Accepted) and answer.term >= self.standing.term:
            self.standing.bound_to(address)
            self._accepted(answer)
            return True
        log.info("the coordinator at %s does not take this agent in: %.200s", address, why)
        self._client.leave()
        return False

    # ------------------------------------------------------------------ the coordinator lives here

    async def _host(self, copy: m.StateCopy, term: int, voters: dict[str, str]) -> bool:
        """Be the coordinator, if enough agents come; only those that want it are told before."""
        before, self.standing.term = self.standing.term, term
        server = await self._office.open(copy, term, self._address, self.standing.shift_s)
        self._announcing = asyncio.create_task(self._announce(term, lambda: voters))
        self.serve(server)
        await self._client.connect(self._office.socket)
        self._client.join(self._introduction())
        begun = await server.begun()
        self._announcing.cancel()
        if begun:
            self._client.keep_nothing()
            self._announcing = asyncio.create_task(self._announce(term, server.missing))
            return True
        log.info("too few agents came for term %d", term)
        self.standing.term = before
        await self.step_down()
        return False

    def serve(self, server: Server) -> None:
        """Let other agents come to the coordinator that lives here."""
        self.peers.joining = server.visit
        self.standing.bound_to(self._address)

    async def step_down(self) -> None:
        """Be the coordinator no longer, if it lives here."""
        if self.peers.joining is None:
            return
        self.peers.joining, self.standing.bound = None, ""
        self.close()
        if self._lease is not None:
            self._lease.release()
        self._client.keeps = True
        self._client.leave()
        await self._office.close()

    def close(self) -> None:
        """Tell nobody any more where the coordinator is."""
        if self._announcing is not None:
            self._announcing.cancel()

    async def _announce(self, term: int, missing: Callable[[], dict[str, str]]) -> None:
        """Tell the agents that should come and have not where the coordinator is, until cancelled."""
        elected = Elected(node=self._node, term=term, address=self._address)
        while True:
            others = [address for node, address in missing().items() if node != self._node]
            await asyncio.gather(*(self._tell(address, elected) for address in others))
            await asyncio.sleep(ANNOUNCE_S)

    async def _tell(self, address: str, elected: Elected) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                await self.peers.tell(address, elected)
