"""The beginning of a job: processes, facts, the first view, the first state."""

from __future__ import annotations

import pytest
from coordinator_story import FACTS, Story

from hpresil.base.errors import ConfigError
from hpresil.membership import messages as m
from hpresil.membership.machine import Settings, begin


def test_an_agent_is_told_to_start_all_workers_and_spares() -> None:
    story = Story(workers=2, spares=1)
    told = story.agent_joins()
    assert told == [
        m.StartWorker(worker=0, node="host", index=0, spare=False),
        m.StartWorker(worker=1, node="host", index=1, spare=False),
        m.StartWorker(worker=2, node="host", index=2, spare=True),
    ]


def test_an_agent_that_joins_twice_starts_nothing_more() -> None:
    story = Story()
    story.agent_joins()
    assert story.happens(m.AgentJoined(node="host", pid=1)) == []


def test_the_first_view_waits_for_all_seats_but_not_for_spares() -> None:
    story = Story(workers=2, spares=1)
    story.agent_joins()
    assert story.ready(2) == []
    assert story.ready(0) == []
    story.ready(1)
    assert story.view == [0, 1]
    assert story.state.generation == 1
    assert sorted(story.who_got(m.View)) == [0, 1, 2]


def test_rank_0_holds_version_0_and_the_others_copy_it() -> None:
    story = Story(workers=3)
    story.agent_joins()
    story.ready(0, 1, 2)
    assert story.reports(0) == []
    assert story.reports(2) == []
    story.reports(1)
    decision = story.decision
    assert decision.initial
    assert decision.target == 0
    assert decision.sources == {1: 0, 2: 0}
    assert decision.slots == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_spares_keep_their_first_state_until_version_0_is_everywhere() -> None:
    story = Story(workers=2, spares=1)
    story.agent_joins()
    story.ready(2, 0, 1)
    story.reports(0)
    story.reports(1)
    assert story.who_got(m.StandBy) == []
    story.restored(1, 0)
    assert story.who_got(m.StandBy) == [2]


def test_a_seat_lost_before_the_first_view_goes_to_the_spare() -> None:
    story = Story(workers=2, spares=1)
    story.agent_joins()
    story.ready(0, 2)
    story.lost(1)
    assert story.view == [0, 2]
    assert story.starts() == [3]


def test_rank_0_lost_before_version_0_is_replaced_by_one_with_the_state_as_built() -> None:
    story = Story(workers=2, spares=1)
    story.agent_joins()
    story.ready(0, 1, 2)
    story.lost(0)
    assert story.view == [2, 1]
    story.reports(1)
    story.reports(2)
    assert story.decision.initial
    assert story.decision.sources == {1: 2}


def test_version_0_lost_while_it_is_copied_waits_for_a_fresh_worker() -> None:
    story = Story(workers=2)
    story.agent_joins()
    story.ready(0, 1)
    story.reports(0)
    story.reports(1)
    story.lost(0)
    assert story.view == [1]
    assert story.starts() == [2]
    story.reports(1)
    assert story.state.phase == "waiting"
    story.ready(2)
    assert story.view == [2, 1]
    story.reports(2)
    story.reports(1)
    assert story.decision.initial
    assert story.decision.sources == {1: 2}


def test_a_script_that_fails_on_import_ends_the_job_with_its_status() -> None:
    story = Story(workers=2)
    story.agent_joins()
    story.lost(1, "exited", 3)
    assert story.end.status == 3
    assert story.end.worker == 1
    assert "exit status 3" in story.end.reason
    assert story.who_got(m.Stop) == [0]


def test_a_script_that_never_asks_for_a_step_is_no_failure() -> None:
    story = Story(workers=2)
    story.agent_joins()
    assert story.lost(0, "exited", 0) == []
    story.lost(1, "exited", 0)
    assert story.end.status == 0
    assert story.end.reason == "script ended without using hpresil"


def test_a_script_whose_ranks_disagree_about_the_loop_is_an_error() -> None:
    story = Story(workers=2)
    story.agent_joins()
    story.lost(0, "exited", 0)
    story.ready(1)
    assert story.end.status == 1
    assert "worker 0 ended with exit status 0" in story.end.reason


def test_a_worker_killed_while_starting_is_started_again_once() -> None:
    story = Story(workers=1)
    story.agent_joins()
    story.lost(0)
    assert story.told == [m.StartWorker(worker=1, node="host", index=0, spare=False, restart=True)]
    story.lost(1, status=-11)
    assert story.end.status == 128 + 11
    assert "like worker 0" in story.end.reason


def test_the_first_facts_are_the_jobs_and_another_worker_that_differs_is_refused() -> None:
    story = Story(workers=2)
    story.agent_joins()
    story.ready(0)
    story.ready(1, facts={**FACTS, "platform.torch": "2.12"})
    assert story.end.status == 1
    assert (
        "worker 1 differs from worker 0: platform.torch is '2.12' there and '2.13' here" in story.end.reason
    )
    assert list(story.fences()) == [1]
    assert story.who_got(m.Stop) == [0]


def test_a_difference_that_an_import_makes_names_the_start_method_that_helps() -> None:
    story = Story(workers=2)
    story.agent_joins()
    story.ready(0, facts={**FACTS, "cpu.threads": "1"})
    story.ready(1, facts={**FACTS, "cpu.threads": "4"})
    assert "cpu.threads is '4' there and '1' here; if the script sets it" in story.end.reason
    assert story.end.reason.endswith("--start-method spawn")


@pytest.mark.parametrize(
    ("facts", "difference"),
    [
        ({"config.slots": "8"}, "platform.torch is missing there and '2.13' here"),
        ({**FACTS, "more": "1"}, "more is '1' there and missing here"),
    ],
)
def test_a_fact_that_is_missing_on_one_side_is_a_difference(facts: dict[str, str], difference: str) -> None:
    story = Story(workers=2)
    story.agent_joins()
    story.ready(0)
    story.ready(1, facts=facts)
    assert difference in story.end.reason


def test_a_replacement_that_differs_is_refused_and_the_job_goes_on() -> None:
    story = Story(workers=2).begins(version=3)
    story.lost(1)
    assert story.starts() == [2]
    story.ready(2, facts={**FACTS, "platform.torch": "2.14"})
    assert "platform.torch is '2.14'" in story.fences()[2]
    story.lost(2, "killed")
    assert story.starts() == []
    story.reports(0, 3)
    assert story.state.phase == "training"


@pytest.mark.parametrize("slots", ["", "0", "-1", "many"])
def test_a_number_of_slots_that_makes_no_sense_ends_the_job(slots: str) -> None:
    story = Story(workers=1)
    story.agent_joins()
    story.ready(0, facts={"config.slots": slots})
    assert story.end.status == 1
    assert "config.slots" in story.end.reason


def test_workers_that_never_become_ready_are_named_with_their_time() -> None:
    story = Story(workers=2, join_timeout_s=60)
    story.agent_joins()
    story.ready(1)
    assert story.after(59) == []
    story.after(1)
    assert story.end.status == 1
    assert "worker 0 (process 1000, for 60 s)" in story.end.reason
    assert "worker 1" not in story.end.reason


def test_a_checkpoint_that_every_worker_has_loaded_is_copied_by_nobody() -> None:
    story = Story(workers=2, resumed=True, first_generation=7)
    story.agent_joins()
    story.ready(0, 1, version=40)
    assert story.state.generation == 8
    story.reports(0, 40)
    story.reports(1, 40)
    assert story.decision.target == 40
    assert story.decision.sources == {}
    assert not story.decision.initial


def test_draining_before_the_first_view_ends_well() -> None:
    story = Story(workers=2)
    story.agent_joins()
    story.drain()
    assert story.end.status == 0


def test_a_job_whose_restarts_are_used_up_while_forming_starts_smaller_or_not_at_all() -> None:
    smaller = Story(workers=2, max_restarts=0)
    smaller.agent_joins()
    smaller.ready(0)
    smaller.lost(1)
    assert smaller.view == [0]
    none = Story(workers=2, max_restarts=0, min_workers=2)
    none.agent_joins()
    none.ready(0)
    none.lost(1)
    assert none.end.status == 1
    assert "1 of at least 2 workers" in none.end.reason


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"spares": -1}, {"min_workers": 3}, {"min_workers": 0}, {"max_restarts": -1}],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        begin(Settings(**{"workers": 2, **wrong}), 0.0)
