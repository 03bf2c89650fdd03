"""The rows of a recovery: each contender's figures or why it has none, floors, goals, peers, lost parts."""

from __future__ import annotations

import pytest
from bench.contenders import Fault, Job, contenders_of
from bench.contenders.peers import BASE, OURS
from bench.recovery import suite

from scripted_contender import TRAIN, WELL, Scripted, failing, flaky

JOB = Job("small", 2, 20, Fault("kill", 1, 14))
REDOES = (
    TRAIN
    + """
for number in range(int(STEPS)):
    if fault_is_at(number):
        fault()
        time.sleep(0.05)
        for again in range(10, number):
            step(again)
    step(number)
"""
)
"""As a restart from a checkpoint: steps 10 to 13 are done twice."""
CHANGES = (
    TRAIN
    + """
for number in range(int(STEPS)):
    if fault_is_at(number):
        fault()
        step(number, loss="bb", ranks=(0,))
        continue
    step(number)
"""
)
"""Goes on without the lost part of that step."""
FAILS_UNDISTURBED = "import os, sys\nif not os.environ['BENCH_FAULT']: sys.exit('OSError: no disk')\n" + WELL


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch, place):
    monkeypatch.setattr(suite, "_undisturbed", {})


def rows_of(*contenders, repeats=1, job=JOB):
    found = suite.measured("case", job, list(contenders), repeats=repeats, warm_up=0)
    return {(one.contender, one.metric): one for one in found}


def test_every_metric_of_every_contender_is_a_row():
    rows = rows_of(Scripted(OURS), failing("bad"))
    assert list(rows) == [(who, metric) for who in (OURS, "bad") for metric in suite.METRICS]
    for one in rows.values():
        assert (one.median is None) == (one.why_missing is not None)
        assert (one.suite, one.case) == ("recovery", "case")
        assert one.why_missing is not None or one.min <= one.median <= one.max


def test_hpresil_has_goals_and_stands_beside_the_floor_and_its_best_peers():
    peers = (Scripted("peer", scripts=(REDOES,)), Scripted("tuned peer", tuned=True))
    rows = rows_of(Scripted(OURS), *peers, repeats=2)
    for metric in suite.WHOLE:
        ours = rows[OURS, metric]
        assert ours.floor == rows[OURS, "healthy_step_s"].median
        assert ours.goal == pytest.approx(ours.floor + 0.1)
        assert ours.ratio_to_best_peer == pytest.approx(ours.median / rows["peer", metric].median)
        assert ours.ratio_to_best_tuned_peer == pytest.approx(ours.median / rows["tuned peer", metric].median)
    for metric in ("steps_redone", "parts_lost", "parts_repeated", "losses_changed"):
        assert (rows[OURS, metric].goal, rows["peer", metric].goal) == (0, None)
        assert rows[OURS, metric].median == 0
    assert {one.runs for one in rows.values() if one.median is not None} == {2}


def test_what_is_redone_makes_catching_up_longer_than_the_first_step_together():
    rows = rows_of(Scripted("peer", scripts=(REDOES,)))
    assert rows["peer", "steps_redone"].median == 4
    assert rows["peer", "caught_up_s"].median > rows["peer", "first_full_group_step_s"].median
    assert (rows["peer", "parts_lost"].median, rows["peer", "losses_changed"].median) == (0, 0)


def test_what_is_lost_and_changed_is_counted():
    rows = rows_of(Scripted("peer", scripts=(CHANGES,)))
    assert (rows["peer", "parts_lost"].median, rows["peer", "losses_changed"].median) == (1, 2)


def test_what_no_mark_is_left_of_is_a_row_that_says_so():
    rows = rows_of(Scripted("peer"))
    for metric in ("members_known_s", "regrouped_s", "restored_s"):
        assert rows["peer", metric].why_missing == "it leaves no mark of this"
    assert rows["peer", "noticed_s"].median is not None


def test_why_one_failed_is_in_its_rows_with_the_place_of_its_logs_and_the_others_go_on(tmp_path):
    rows = rows_of(failing("bad"), Scripted(OURS))
    kept = sorted((tmp_path / "kept").iterdir())
    assert len(kept) == 2, "it has two attempts"
    assert rows["bad", "caught_up_s"].why_missing == (
        f"process-0 ended with status 3: RuntimeError: out of luck; its logs are in {kept[-1]}"
    )
    assert rows[OURS, "caught_up_s"].median is not None


def test_a_bad_day_is_noted_beside_the_figures(tmp_path):
    rows = rows_of(flaky("peer", tmp_path / "times", fails=[1]), repeats=2)
    one = rows["peer", "caught_up_s"]
    assert one.runs == 2
    assert one.note.startswith(
        "1 failed attempt, the last: process-0 ended with status 1: ValueError: a bad day"
    )


def test_a_run_without_the_fault_that_fails_costs_only_what_is_compared_with_it():
    rows = rows_of(Scripted("peer", scripts=(FAILS_UNDISTURBED,)), Scripted(OURS))
    why = rows["peer", "losses_changed"].why_missing
    assert why.startswith("there is no run without the fault to compare with: process-0 ended with status 1")
    assert "OSError: no disk" in why
    assert rows["peer", "caught_up_s"].median is not None
    assert rows[OURS, "losses_changed"].median == 0


def test_the_run_without_the_fault_is_made_once_for_all_cases_with_that_job(tmp_path):
    times = tmp_path / "times"
    contender = flaky("peer", times, fails=[])
    rows_of(contender, repeats=2)
    assert times.stat().st_size == 3
    other_fault = Job("small", 2, 20, Fault("hang", 1, 12))
    rows_of(contender, job=other_fault)
    assert times.stat().st_size == 4
    rows_of(contender, job=Job("small", 2, 21, Fault("kill", 1, 14)))
    assert times.stat().st_size == 6


def test_a_job_that_takes_more_memory_than_is_free_is_not_begun(monkeypatch, tmp_path):
    monkeypatch.setattr(suite, "free_gib", lambda: 5.25)
    times = tmp_path / "times"
    rows = rows_of(flaky("peer", times, fails=[]), job=Job("50m", 2, 20, Fault("kill", 1, 14)))
    assert rows["peer", "caught_up_s"].why_missing == "it takes 6 GiB of memory, 5.2 are free"
    assert not times.exists()


def test_plain_ddp_is_there_and_says_why_it_has_no_figures():
    (ddp,) = (one for one in contenders_of("recovery") if one.name == BASE)
    rows = rows_of(ddp)
    assert {one.why_missing for one in rows.values()} == {"it has no recovery of its own"}


def test_quick_runs_one_case_unless_more_are_named():
    assert suite.names(quick=True) == ["sigkill-5m-2+1"]
    assert set(suite.names(quick=False)) == set(suite.jobs())
