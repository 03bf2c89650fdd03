"""A job in one process: the coordinator's machine, agents, and workers that follow the step contract.

Messages travel in queues, one each way for each worker, and are taken out in random order; workers
die, stop answering, fail and are started again at random moments, nodes are lost, drained and come
back, people ask for another size. The world knows what really happened, so it can check what the
coordinator decides.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from coordinator_nodes import Nodes
from coordinator_worker import FACTS, Job, Plan, Worker

from hpresil.membership import machine, messages as m
from hpresil.membership.state import Settings, begin

SLOTS = int(FACTS["config.slots"])


class World:
    """Runs one plan to its end; `run` returns how the job ended."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.random = plan, random.Random(seed)
        self.job = Job(plan, self.random)
        self.settings = Settings(
            workers=plan.workers,
            host="a",
            leased=True,
            nnodes=plan.nodes,
            places=plan.places,
            spares=plan.spares,
            min_workers=plan.min_workers,
            max_restarts=plan.restarts,
            save_directory="/saved",
        )
        self.state = begin(self.settings, 0.0)
        self.time = 0.0
        self.history: list[tuple[machine.Event, float]] = []
        self.to_coordinator: deque[machine.Event] = deque()
        self.nodes = Nodes(plan, self.random, self.to_coordinator.append)
        self.workers: dict[int, Worker] = {}
        self.gone: set[int] = set()
        self.reports: dict[int, dict[int, m.Report]] = {}
        self.views: dict[int, list[int]] = {}
        self.handed: dict[int, set[int]] = {}
        self.newest = -1
        self.ended: m.JobEnded | None = None

    # ------------------------------------------------------------------ the scheduler

    def run(self, patience: int = 6000) -> m.JobEnded:
        """Make random moves until the job ends.

        It must end without any deadline: when nobody can move, time passes only up to the grace
        after a lost group.
        """
        for _ in range(patience):
            if self.random.random() < self.plan.haste:
                self._misfortune()
            moves = self._moves()
            if moves:
                self.random.choice(moves)()
            elif self.ended is not None:
                return self.ended
            elif not self._rescue():
                self._happens(machine.Tick())
                assert self._moves() or self.ended, f"stuck in {self.state.phase}: {self.state.reason}"
        raise AssertionError(f"no end after {patience} moves: {self.state}")

    def _rescue(self) -> bool:
        """What the agent and time do when nobody moves: kill who does not answer; end a grace."""
        for worker in self.workers.values():
            if worker.alive and worker.stuck:
                self.die(worker, "hung")
                return True
        # A node that was lost before the first view and does not come back is waited for until the deadline.
        self.time += self.settings.join_timeout_s if self.state.phase == "joining" else 3.0
        return False

    def _moves(self) -> list[Callable[[], None]]:
        moves: list[Callable[[], None]] = []
        if self.to_coordinator:
            moves.append(lambda: self._happens(self.to_coordinator.popleft()))
        for worker in self.workers.values():
            if worker.outbox:
                moves.append(lambda w=worker: self._hears(w))
            if worker.alive and not worker.stuck:
                if worker.inbox:
                    moves.append(lambda w=worker: w.receives(w.inbox.popleft()))
                if worker.can_progress():
                    moves.append(worker.progress)
                if worker.released and not worker.outbox and self.ended is None:
                    moves.append(lambda w=worker: self.die(w, "left"))
        return moves

    def _misfortune(self) -> None:
        plan = self.plan
        alive = [w for w in self.workers.values() if w.alive and not w.released]
        if not alive or self.ended:
            return
        worker = self.random.choice(alive)
        kind = self.random.choice(["kills", "stops", "lost_groups", "drain", "nodes"])
        if kind == "nodes":
            self.nodes.misfortune(self)
        elif kind == "drain" and plan.drain:
            plan.drain = False
            self.to_coordinator.append(m.DrainRequested(why="asked"))
        elif kind not in ("drain", "nodes") and getattr(plan, kind) > 0:
            setattr(plan, kind, getattr(plan, kind) - 1)
            if kind == "kills":
                self.die(worker, "killed")
            elif kind == "stops":
                worker.stuck = True
            else:
                worker.say(m.GroupLost(generation=worker.installed, error="reset"))

    def die(self, worker: Worker, reason: str) -> None:
        worker.alive = False
        for _ in range(self.random.randint(0, len(worker.outbox))):
            worker.outbox.pop()  # the agent did not read these any more
        if reason == "node lost":
            worker.outbox.clear()
        elif worker.released:
            self.to_coordinator.append(m.WorkerLeft(worker=worker.id))
        else:
            self.to_coordinator.append(m.WorkerLost(worker=worker.id, reason=reason, status=-9))

    # ------------------------------------------------------------------ the coordinator and the agent

    def _hears(self, worker: Worker) -> None:
        said = worker.outbox.popleft()
        if isinstance(said, m.Served):
            if not worker.alive:
                return  # its agent, or it in the middle of the frame
            self.nodes.sealed[worker.node] = said.version
            self._happens(m.FrameSealed(node=worker.node, version=said.version, frame=0))
            decision = self.job.decisions[said.generation]
            if self.state.generation == said.generation:
                ready = m.StateReady(generation=said.generation, version=said.version, frame=0)
                for newcomer in decision.sources:
                    self.workers[newcomer].inbox.append(ready)
            return
        if isinstance(said, m.Report) and worker.id not in self.gone:
            self.reports.setdefault(said.generation, {}).setdefault(worker.id, said)
            self.newest = max(self.newest, said.version)
        if isinstance(said, m.HandedOver):
            self.handed.setdefault(said.generation, set()).add(worker.id)
        self._happens(m.Relayed(worker=worker.id, said=said))

    def _happens(self, event: machine.Event) -> None:
        if isinstance(event, m.WorkerLost | m.WorkerLeft):
            self.gone.add(event.worker)
        if isinstance(event, machine.NodeLost):
            self.gone |= {w.id for w in self.state.workers.values() if w.node == event.node}
        before = self.state
        self.history.append((event, self.time))
        self.state, actions = machine.step(before, event, self.time)
        assert self.state.generation >= before.generation
        for action in actions:
            self._act(action)

    def _act(self, action: m.ToAgent) -> None:
        assert self.ended is None, f"{action} after the end"
        match action:
            case m.StartWorker():
                assert action.worker not in self.workers, "a worker id was used again"
                self._start(action)
            case m.FenceWorker():
                assert action.worker not in self.gone
                self.gone.add(action.worker)
                if self.workers[action.worker].alive:
                    self.die(self.workers[action.worker], "ended")
            case m.Probe() | m.Rejected() | m.Dismissed() | m.Answered():
                self.nodes.told(self, action)
            case m.JobEnded():
                self._check_end(action)
                self.ended = action
            case m.Deliver():
                assert action.to not in self.gone, f"{action} to a worker that is gone"
                self._deliver(action.to, action.what)

    def _start(self, start: m.StartWorker) -> None:
        started = Worker(start.worker, self.job, start.node)
        self.workers[start.worker] = started
        assert start.node in self.state.nodes
        if start.node not in self.nodes.there:
            started.alive = False  # the coordinator does not know yet that the node is lost
            return
        self.to_coordinator.append(m.WorkerStarted(worker=start.worker, node=start.node, pid=1))
        started.say(m.Hello(worker=start.worker, pid=1))
        started.say(m.Ready(facts=FACTS))

    def _deliver(self, to: int, what: m.ToWorker) -> None:
        if isinstance(what, m.View):
            self._check_view(what)
        if isinstance(what, m.Release) and self.state.phase != "ended":
            assert to not in self.state.members, "a member was released before the end"
        self.workers[to].inbox.append(what)
        if isinstance(what, m.Decision):
            self._check_decision(what)
            if to == self.views[what.generation][-1]:
                self._serve(what)

    def _serve(self, decision: m.Decision) -> None:
        for newcomer, source in decision.sources.items():
            if source < 0:
                self._read_store(decision, self.workers[newcomer])
        for source in {source for source in decision.sources.values() if source >= 0}:
            serve = m.Serve(generation=decision.generation, version=decision.target, frame=0)
            self.workers[source].inbox.append(serve)

    def _read_store(self, decision: m.Decision, newcomer: Worker) -> None:
        version = self.nodes.sealed.get(decision.store, -1)
        if version == decision.target:
            newcomer.inbox.append(m.StateReady(generation=decision.generation, version=version, frame=0))
        else:  # the node with the frame is gone: the newcomer's agent cannot fetch it
            error = m.RestoreFailed(generation=decision.generation, frame=-1, error="node gone")
            newcomer.say(error)

    # ------------------------------------------------------------------ what must hold

    def _check_view(self, view: m.View) -> None:
        if view.generation in self.views:
            assert self.views[view.generation] == view.members
            return
        assert view.generation == max(self.views, default=0) + 1
        assert view.members
        assert len(set(view.members)) == len(view.members)
        assert not self.gone & set(view.members)
        before = self.views.get(view.generation - 1, [])
        staying = [w for w in view.members if not self.state.nodes[self.workers[w].node].draining]
        assert set(view.members) <= set(before) or len(staying) <= self.state.wanted
        if left := [w for w in before if w not in view.members and w not in self.gone]:
            self._check_hand_over(view, before, left)
        self.views[view.generation] = view.members

    def _check_hand_over(self, view: m.View, before: list[int], left: list[int]) -> None:
        """Nobody leaves in the middle of a step, or with something that no other member has."""
        handed = self.handed.get(view.generation - 1, set())
        assert set(before) - self.gone <= handed, f"{left} left, but only {handed} had handed over"
        versions = {self.workers[w].version for w in before if self.workers[w].alive}
        assert len(versions) <= 1, f"{left} left, and the versions were {versions}"
        assert any(w in before for w in view.members), "nobody who stays has the state"
        assert len(view.members) >= self.plan.min_workers

    def _check_decision(self, decision: m.Decision) -> None:
        members = self.views[decision.generation]
        if decision.generation in self.job.decisions:
            assert self.job.decisions[decision.generation] == decision
            return
        assert decision.generation == max(self.views)
        reports = self.reports.get(decision.generation, {})
        assert set(reports) >= set(members), f"{decision} without all reports of {members}"
        versions = [reports[w].version for w in members]
        if max(versions) >= 0:
            assert decision.target == max(versions)
            assert all(reports[source].version == decision.target for source in decision.sources.values())
        elif not decision.initial:
            assert set(decision.sources.values()) == {-1}
            assert decision.target == self.state.sealed[decision.store].version
        assert decision.initial <= (max(versions) < 0 and self.state.newest <= 0)
        assert len(decision.slots) == len(members)
        assert sorted(slot for carried in decision.slots for slot in carried) == list(range(SLOTS))
        if self.plan.faultless():
            assert decision.target >= self.newest, "a step was made again"
        self.job.decisions[decision.generation] = decision

    def _check_end(self, end: m.JobEnded) -> None:
        if end.saved:
            assert int(end.saved.removeprefix("/saved/")) >= 0
        if end.reason.startswith("StateLost"):
            holders = [w.id for w in self.workers.values() if w.alive and w.version >= 0]
            assert not set(holders) - self.gone, f"{end.reason}, but {holders} have state"
            assert not self.state.sealed or "have no copy" not in end.reason
        if end.status == 0 and end.reason.startswith("finished"):
            for member in self.state.members:
                worker = self.workers[member]
                assert not worker.alive or worker.version == self.plan.steps

    def check_replay(self) -> None:
        """The same events give the same state, also through its encoding."""
        state = begin(self.settings, 0.0)
        for count, (event, time) in enumerate(self.history):
            if count % 50 == 0:
                state = machine.decode_state(machine.encode_state(state))
            state, _ = machine.step(state, event, time)
        assert state == self.state
