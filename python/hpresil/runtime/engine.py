"""The worker's engine: one lock around the step machine, messages in, actions out.

Three threads meet here. The training thread asks `next_action` what to do and waits there; the
control thread brings messages from the agent (`handle`); the serving thread copies state out. All of
them change the step machine's state under one condition, so that a report sent for a view and a vote
that completes at the same moment are ordered: the report is a promise.

Not guaranteed: that a message which was sent has been acted upon; everything that matters carries a
generation and is dropped when that is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from hpresil.base import failpoints, spans
from hpresil.base.config import Config
from hpresil.base.deadline import Deadline
from hpresil.base.errors import HpresilError, JobStopped
from hpresil.base.phases import CODE
from hpresil.membership import messages as m
from hpresil.native import Page
from hpresil.runtime import step_machine as sm
from hpresil.runtime.groups import Groups
from hpresil.runtime.guard import StateGuard

STOP_SLACK_S = 30.0  # beyond the saves that the coordinator may ask for, one member after the other
BEAT_S = 1.0  # a wait is looked at again this often, so that a deadline is noticed


class Engine:
    """State shared by the threads of one worker."""

    def __init__(
        self,
        *,
        worker: int,
        config: Config,
        send: Callable[[m.FromWorker], None],
        page: Page | None,
        hostname: str,
    ) -> None:
        self.worker = worker
        self.config = config
        self.send = send
        self.page = page
        self.changed = threading.Condition()
        self.state = sm.StepState(worker=worker, slots=config.slots)
        self.guard = StateGuard()
        self.groups = Groups(
            worker=worker, page=page, send=send, hostname=hostname, timeout_s=config.collective_timeout_s
        )
        self.standby = False
        self.drain = False
        self.hand_over = 0  # the newest generation that is to end with a step
        self.release: m.Release | None = None
        self.stopped: str | None = None
        self.frame: m.StateReady | None = None
        self.first_failure: BaseException | None = None
        self.on_copy: Callable[[m.Serve | m.Save], None] | None = None
        self._phase_name = "outside"
        self._fatal: BaseException | None = None

    # ------------------------------------------------------------------ control thread

    def handle(self, message: m.ToWorker) -> None:
        """Take one message from the agent. Called on the control thread, in order of arrival."""
        try:
            self._handle(message)
        except Exception as error:  # the control thread must live on
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Something failed beside the training thread, which will raise it."""
        with self.changed:
            self._fatal = error
            self.changed.notify_all()

    def _handle(self, message: m.ToWorker) -> None:
        match message:
            case m.View():
                self._on_view(message)
            case m.Decision():
                self._on_decision(message)
            case m.StoreValues():
                self.groups.rendezvous.answered(message.request, message.values)
            case m.Serve() | m.Save():
                if self.on_copy is not None:
                    self.on_copy(message)
            case _:
                self._note(message)

    def _on_view(self, view: m.View) -> None:
        failpoints.hit("regroup.view", worker=self.worker, rank=self.state.rank, step=self.state.version)
        with spans.span("view", generation=view.generation):
            with self.changed:
                self.state, reports = sm.on_view(self.state, view.generation, tuple(view.members))
                for report in reports:
                    self.send(report)
                self.changed.notify_all()
            self.groups.install(view)

    def _on_decision(self, decision: m.Decision) -> None:
        with self.changed:
            self.state = sm.on_decision(self.state, decision)
            self.changed.notify_all()

    def _note(self, message: m.ToWorker) -> None:
        with self.changed:
            match message:
                case m.StandBy():
                    self.standby = True
                case m.StateReady():
                    self.frame = message
                case m.Drain():
                    self.drain = True
                case m.HandOver():
                    self.hand_over = message.generation
                case m.Release():
                    self.release = message
                case m.Stop():
                    self.stopped = message.reason
            self.changed.notify_all()

    def connection_lost(self, why: str) -> None:
        """The agent is gone: nobody decides any more."""
        with self.changed:
            if self.release is None and self.stopped is None:
                self.stopped = f"the agent of worker {self.worker} is gone ({why})"
            self.changed.notify_all()

    # ------------------------------------------------------------------ training thread

    def next_action(self) -> sm.Action:
        """Return what to do next, waiting for messages as long as it takes to know.

        Raises:
            JobStopped: The coordinator stopped the job.
            DeadlineExceeded: No decision arrived within the longest time a job may wait for one.
        """
        longest = self.config.collective_timeout_s + self.config.min_workers_timeout_s
        with self.changed:
            action = sm.next_action(self.state)
            if isinstance(action, sm.Wait):
                deadline = Deadline(longest, f"worker {self.worker}: {action.why}")
                self.stamp("waiting")
                with spans.span("wait"):
                    while isinstance(action, sm.Wait):
                        self.check()
                        deadline.check()
                        self.changed.wait(min(BEAT_S, deadline.remaining()))
                        action = sm.next_action(self.state)
            self.check()
            if isinstance(action, sm.RunSlot):
                self.state = sm.start_slot(self.state, action.slot)
            return action

    def wait_until(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait for a change that makes ``ready`` true; call with the lock not held."""
        deadline = Deadline(seconds, f"worker {self.worker}: {what}")
        with self.changed:
            while not ready():
                self.check()
                deadline.check()
                self.changed.wait(min(BEAT_S, deadline.remaining()))

    def change(self, update: Callable[[sm.StepState], sm.StepState]) -> None:
        """Apply a transition of the step machine that reports nothing."""
        with self.changed:
            self.state = update(self.state)
            self.changed.notify_all()

    def change_and_report(self, update: Callable[[sm.StepState], sm.Next]) -> None:
        """Apply a transition and send what it reports, in one piece."""
        with self.changed:
            self.state, reports = update(self.state)
            for report in reports:
                self.send(report)
            self.changed.notify_all()

    def check(self) -> None:
        """Raise if the job was stopped or the contract was broken."""
        if self._fatal is not None:
            raise self._fatal
        if self.stopped is not None:
            raise JobStopped(self.stopped) from self.first_failure

    def await_stop(self) -> None:
        """Wait, after a failure that ends the job, until the coordinator has saved and says stop."""
        self.stamp("waiting")
        with self.changed:
            saves_s = self.config.save_timeout_s * max(1, len(self.state.members))
            deadline = Deadline(saves_s + STOP_SLACK_S, "the end of the job")
            while self.stopped is None and not deadline.expired():
                self.changed.wait(min(BEAT_S, deadline.remaining()))

    def group_failed(self, generation: int, error: HpresilError) -> None:
        """A collective of ``generation`` failed. Tell the coordinator unless a newer view explains it."""
        with self.changed:
            self.state = sm.group_failed(self.state, generation)
            newer = self.state.installed > generation
            self.changed.notify_all()
        if not newer:
            self.send(m.GroupLost(generation=generation, error=str(error)))

    def stamp(self, phase: str, slot: int = -1) -> None:
        """Write a sign of progress into the liveness page."""
        self._phase_name = phase
        spans.at(self.state.version, self.state.installed)
        if self.page is not None:
            self.page.stamp(CODE[phase], self.state.version, slot)

    @property
    def phase_name(self) -> str:
        """The phase last written into the page."""
        return self._phase_name
