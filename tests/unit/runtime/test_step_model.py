"""The step contract's rules hold in every reachable state, and each of them is needed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hpresil.runtime import step_machine as sm
from step_model import Model, Rules


@pytest.mark.timeout(300)  # every state: half a minute of a quiet processor
def test_no_schedule_of_two_crashes_breaks_the_contract() -> None:
    states = Model(Rules(), final=1, max_faults=2).check()
    print(f"{states} states")
    assert states > 10_000


def test_two_steps_with_one_crash_keep_the_contract() -> None:
    assert Model(Rules(), final=2, max_faults=1).check() > 1_000


def test_without_the_promise_a_late_vote_breaks_it() -> None:
    def vote_counted(s: sm.StepState, generation: int) -> sm.StepState:
        return replace(s, phase="committing") if s.phase == "holding" else s

    with pytest.raises(AssertionError):
        Model(Rules(vote_counted=vote_counted), final=1, max_faults=2).check()


def test_a_committing_worker_that_reports_at_once_breaks_it() -> None:
    def on_view(s: sm.StepState, generation: int, members: tuple[int, ...]) -> sm.Next:
        disguised = replace(s, phase="holding") if s.phase == "committing" else s
        after, said = sm.on_view(disguised, generation, members)
        return replace(after, phase=s.phase), said

    with pytest.raises(AssertionError):
        Model(Rules(on_view=on_view), final=1, max_faults=2).check()


def test_reducing_before_the_decision_breaks_it() -> None:
    def next_action(s: sm.StepState) -> sm.Action:
        if s.phase == "computing" and s.decided != s.installed and s.rank is not None:
            s = replace(s, decided=s.installed)
        return sm.next_action(s)

    def on_view(s: sm.StepState, generation: int, members: tuple[int, ...]) -> sm.Next:
        after, said = sm.on_view(s, generation, members)
        ready = after.promised == generation and after.phase == "computing"
        return (replace(after, decided=generation) if ready else after), said

    with pytest.raises(AssertionError):
        Model(Rules(on_view=on_view, next_action=next_action), final=1, max_faults=2).check()


def test_a_worker_that_reports_a_state_that_is_still_arriving_breaks_it() -> None:
    def on_view(s: sm.StepState, generation: int, members: tuple[int, ...]) -> sm.Next:
        disguised = replace(s, phase="computing") if s.phase == "arriving" else s
        after, said = sm.on_view(disguised, generation, members)
        return replace(after, phase=s.phase), said

    with pytest.raises(AssertionError):
        Model(Rules(on_view=on_view), final=1, max_faults=2).check()


def test_workers_that_leave_at_the_last_version_leave_others_behind() -> None:
    with pytest.raises(AssertionError):
        Model(Rules(finished_stay=False), final=1, max_faults=2).check()
