"""A job in one process: the coordinator's machine, an agent, and workers that follow the step contract.

Messages travel in queues, one each way for each worker, and are taken out in random order; workers
die, stop answering, fail and are started again at random moments. The world knows what really
happened, so it can check what the coordinator decides.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

from hpresil.membership import machine
from hpresil.membership import messages as m
from hpresil.membership.state import Settings, begin

SLOTS = 5
FACTS = {"config.slots": str(SLOTS)}


@dataclass
class Plan:
    """What happens to the job.

    Attributes:
        kills: Workers that die; the moment is random.
        stops: Workers that answer nothing any more, until the agent kills them.
        discards: States that are spoiled after a commit.
        bad_copies: Copies of the state that fail.
        lost_groups: Groups that fail for no reason.
        drain: Somebody asks the job to end.
        haste: The chance of one of these before each move.
    """

    workers: int = 2
    spares: int = 1
    min_workers: int = 1
    steps: int = 3
    kills: int = 0
    stops: int = 0
    discards: int = 0
    bad_copies: int = 0
    lost_groups: int = 0
    drain: bool = False
    restarts: int = 100
    haste: float = 0.03


@dataclass
class Worker:
    """The worker's side of the step contract, reduced to what the coordinator sees."""

    id: int
    inbox: deque[m.ToWorker] = field(default_factory=deque)
    outbox: deque[m.FromWorker] = field(default_factory=deque)
    alive: bool = True
    stuck: bool = False
    version: int = -1
    phase: str = "empty"
    installed: int = 0
    promised: int = 0
    decided: int = 0
    members: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    wish: bool = False
    finished: bool = False
    rolling: bool = False
    leaving: bool = False
    released: bool = False

    def say(self, message: m.FromWorker) -> None:
        self.outbox.append(message)

    def report(self) -> None:
        self.promised = self.installed
        phase = "computing" if self.finished else self.phase
        self.say(
            m.Report(
                generation=self.promised,
                version=self.version,
                phase=phase,
                kept=list(self.slots),
                done=self.slots[:1],
                finished=self.finished,
            )
        )

    def busy_committing(self) -> bool:
        return self.phase == "applied"


class World:
    """Runs one plan to its end; `run` returns how the job ended."""

    def __init__(self, plan: Plan, seed: int) -> None:
        self.plan, self.random = plan, random.Random(seed)
        self.settings = Settings(
            nproc_per_node=plan.workers,
            spares=plan.spares,
            min_workers=plan.min_workers,
            max_restarts=plan.restarts,
            save_directory="/saved",
        )
        self.state = begin(self.settings, 0.0)
        self.time = 0.0
        self.history: list[tuple[machine.Event, float]] = []
        self.to_coordinator: deque[m.FromAgent] = deque([m.AgentJoined(node="host", pid=1)])
        self.workers: dict[int, Worker] = {}
        self.gone: set[int] = set()
        self.reports: dict[int, dict[int, m.Report]] = {}
        self.views: dict[int, list[int]] = {}
        self.decisions: dict[int, m.Decision] = {}
        self.entered: dict[tuple[int, int], set[int]] = {}
        self.votes: dict[tuple[int, int], dict[int, bool]] = {}
        self.sealed = -1
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
                self._die(worker, "hung")
                return True
        self.time += 3.0
        return False

    def _moves(self) -> list:  # type: ignore[type-arg]
        moves: list = []  # type: ignore[type-arg]
        if self.to_coordinator:
            moves.append(lambda: self._happens(self.to_coordinator.popleft()))
        for worker in self.workers.values():
            if worker.outbox:
                moves.append(lambda w=worker: self._hears(w))
            if worker.alive and not worker.stuck:
                if worker.inbox:
                    moves.append(lambda w=worker: self._receives(w, w.inbox.popleft()))
                if self._can_progress(worker):
                    moves.append(lambda w=worker: self._progress(w))
        return moves

    def _misfortune(self) -> None:
        plan = self.plan
        alive = [w for w in self.workers.values() if w.alive and not w.released]
        if not alive or self.ended:
            return
        worker = self.random.choice(alive)
        kind = self.random.choice(["kills", "stops", "lost_groups", "drain"])
        if kind == "drain" and plan.drain:
            plan.drain = False
            self.to_coordinator.append(m.DrainRequested(why="asked"))
        elif kind != "drain" and getattr(plan, kind) > 0:
            setattr(plan, kind, getattr(plan, kind) - 1)
            if kind == "kills":
                self._die(worker, "killed")
            elif kind == "stops":
                worker.stuck = True
            else:
                worker.say(m.GroupLost(generation=worker.installed, error="reset"))

    def _die(self, worker: Worker, reason: str) -> None:
        worker.alive = False
        for _ in range(self.random.randint(0, len(worker.outbox))):
            worker.outbox.pop()  # the agent did not read these any more
        self.to_coordinator.append(m.WorkerLost(worker=worker.id, reason=reason, status=-9))

    # ------------------------------------------------------------------ the coordinator and the agent

    def _hears(self, worker: Worker) -> None:
        said = worker.outbox.popleft()
        if isinstance(said, m.Served):
            self.sealed = said.version
            self._happens(m.FrameSealed(version=said.version, frame=0))
            decision = self.decisions[said.generation]
            if self.state.generation == said.generation:
                ready = m.StateReady(generation=said.generation, version=said.version, frame=0)
                for newcomer in decision.sources:
                    self.workers[newcomer].inbox.append(ready)
            return
        if isinstance(said, m.Report) and worker.id not in self.gone:
            self.reports.setdefault(said.generation, {}).setdefault(worker.id, said)
        self._happens(m.Relayed(worker=worker.id, said=said))

    def _happens(self, event: machine.Event) -> None:
        if isinstance(event, m.WorkerLost):
            self.gone.add(event.worker)
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
                started = Worker(action.worker)
                self.workers[action.worker] = started
                self.to_coordinator.append(m.WorkerStarted(worker=action.worker, node="host", pid=1))
                started.say(m.Hello(worker=action.worker, pid=1))
                started.say(m.Ready(facts=FACTS))
            case m.FenceWorker():
                assert action.worker not in self.gone
                self.gone.add(action.worker)
                if self.workers[action.worker].alive:
                    self._die(self.workers[action.worker], "ended")
            case m.JobEnded():
                self._check_end(action)
                self.ended = action
            case m.Deliver():
                assert action.to not in self.gone, f"{action} to a worker that is gone"
                self._deliver(action.to, action.what)

    def _deliver(self, to: int, what: m.ToWorker) -> None:
        if isinstance(what, m.View):
            self._check_view(what)
        self.workers[to].inbox.append(what)
        if isinstance(what, m.Decision):
            self._check_decision(what)
            if to == self.views[what.generation][-1]:
                self._serve(what)

    def _serve(self, decision: m.Decision) -> None:
        for newcomer, source in decision.sources.items():
            if source < 0:
                ready = m.StateReady(generation=decision.generation, version=self.sealed, frame=0)
                self.workers[newcomer].inbox.append(ready)
        for source in {source for source in decision.sources.values() if source >= 0}:
            serve = m.Serve(generation=decision.generation, version=decision.target, frame=0)
            self.workers[source].inbox.append(serve)

    # ------------------------------------------------------------------ a worker

    def _receives(self, w: Worker, message: m.ToWorker) -> None:
        match message:
            case m.View():
                assert message.generation > w.installed
                w.installed, w.members = message.generation, message.members
                if w.id in message.members and not w.busy_committing():
                    w.report()
            case m.StandBy():
                assert w.version < 0, "a worker with state was told to make a dry step"
                w.say(m.Ready(facts=FACTS, pristine=False))
            case m.Decision() if message.generation == w.installed:
                self._obey(w, message)
            case m.Serve() if message.generation == w.installed and w.version >= 0:
                if w.version == message.version and not w.rolling:
                    served = m.Served(
                        generation=message.generation, version=w.version, frame=0, frame_bytes=1
                    )
                    w.say(served)
                else:
                    w.inbox.append(message)
            case m.StateReady() if message.generation == w.installed and w.phase == "empty":
                if w.decided < message.generation:
                    w.inbox.append(message)
                else:
                    self._copy(w, message)
            case m.Drain():
                w.wish = True
            case m.Save():
                error = "" if w.version >= 0 else "no state"
                w.say(m.Saved(version=w.version, path=f"/saved/{w.version}", error=error))
            case m.Release() | m.Stop():
                w.released = True

    def _copy(self, w: Worker, ready: m.StateReady) -> None:
        if self.plan.bad_copies > 0 and self.random.random() < 0.5:
            self.plan.bad_copies -= 1
            w.say(m.RestoreFailed(generation=ready.generation, frame=0, error="checksum"))
            return
        w.version, w.phase = ready.version, "computing"
        w.say(m.Restored(generation=ready.generation, version=ready.version, state_bytes=1))
        self._maybe_finish(w)

    def _obey(self, w: Worker, decision: m.Decision) -> None:
        rank = decision_rank = w.members.index(w.id)
        w.decided = decision.generation
        w.slots = list(decision.slots[decision_rank])
        if w.id in decision.sources:
            assert w.phase == "empty", f"worker {w.id} has version {w.version} and is told to copy"
            w.finished = False
        elif w.id in decision.roll:
            assert (w.phase, w.version) == ("holding", decision.target - 1)
            w.phase, w.rolling = "applied", True
        elif decision.initial and rank == 0:
            w.version, w.phase = 0, "computing"
        else:
            assert w.version == decision.target, f"worker {w.id}: {w.version} is not {decision.target}"
            w.phase = "computing"
        if decision.finished and w.version == decision.target and w.phase == "computing":
            self._finish(w)

    def _can_progress(self, w: Worker) -> bool:
        if w.released or w.phase == "empty" or w.finished:
            return False
        if w.phase == "applied":
            return True
        place = (w.decided, w.version)
        if w.id not in w.members or w.decided != w.installed or w.promised > w.decided:
            return False
        if w.phase == "holding":
            return set(self.votes.get(place, {})) >= set(w.members)
        entered = self.entered.get(place, set())
        return w.id not in entered or entered >= set(w.members)

    def _progress(self, w: Worker) -> None:
        place = (w.decided, w.version)
        if w.phase == "computing":
            entered = self.entered.setdefault(place, set())
            if w.id not in entered:
                entered.add(w.id)
                return
            w.phase = "holding"
            self.votes.setdefault(place, {})[w.id] = w.wish
        elif w.phase == "holding":
            w.phase = "applied"
            if any(self.votes[place].values()):
                w.wish = w.leaving = True
        else:
            self._end_of_block(w)

    def _end_of_block(self, w: Worker) -> None:
        step = w.version
        if self.plan.discards > 0 and self.random.random() < 0.2:
            self.plan.discards -= 1
            w.version, w.phase, w.leaving, w.rolling, w.slots = -1, "empty", False, False, []
            w.say(m.StateDiscarded(step=step, error="x", traceback="x"))
            if w.installed > w.promised and w.id in w.members:
                w.report()
            return
        w.version, w.phase, w.rolling, w.slots = step + 1, "computing", False, []
        said = {"loss": "", "grad_norm": "", "samples": "", "state": ""}
        w.say(m.Committed(generation=w.decided, step=step, world_size=len(w.members), **said))
        decision = self.decisions.get(w.decided)
        ends = decision is not None and decision.finished and decision.target == w.version
        if w.leaving or ends:
            self._finish(w)
        else:
            self._maybe_finish(w)
        if w.installed > w.promised and w.id in w.members:
            w.report()

    def _maybe_finish(self, w: Worker) -> None:
        decision = self.decisions.get(w.decided)
        ends = decision is not None and decision.finished and decision.target == w.version
        if w.version >= self.plan.steps or ends:
            self._finish(w)

    def _finish(self, w: Worker) -> None:
        w.finished = True
        w.say(m.Finished(generation=w.decided, version=w.version, drained=w.wish))

    # ------------------------------------------------------------------ what must hold

    def _check_view(self, view: m.View) -> None:
        if view.generation in self.views:
            assert self.views[view.generation] == view.members
            return
        assert view.generation == max(self.views, default=0) + 1
        assert 1 <= len(view.members) <= self.plan.workers
        assert len(set(view.members)) == len(view.members)
        assert not self.gone & set(view.members)
        self.views[view.generation] = view.members

    def _check_decision(self, decision: m.Decision) -> None:
        members = self.views[decision.generation]
        if decision.generation in self.decisions:
            assert self.decisions[decision.generation] == decision
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
            assert decision.target == self.sealed
        assert decision.initial <= (max(versions) < 0 and self.state.newest <= 0)
        assert len(decision.slots) == len(members)
        assert sorted(slot for carried in decision.slots for slot in carried) == list(range(SLOTS))
        self.decisions[decision.generation] = decision

    def _check_end(self, end: m.JobEnded) -> None:
        if end.saved:
            assert int(end.saved.removeprefix("/saved/")) >= 0
        if end.reason.startswith("StateLost"):
            holders = [w.id for w in self.workers.values() if w.alive and w.version >= 0]
            assert not set(holders) - self.gone, f"{end.reason}, but {holders} have state"
            assert self.sealed < 0 or "have no copy" not in end.reason
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
