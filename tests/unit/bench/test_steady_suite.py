"""What protection costs: whole intervals between saves are timed, all processes count, beside plain DDP."""

from __future__ import annotations

import json

import pytest
from bench.contenders import Job, launched, run_processes
from bench.contenders.peers import BASE, OURS
from bench.steady import suite
from bench.steady.use import Use

from scripted_contender import WELL, Scripted, failing, flaky

JOB = suite.of_intervals(Job("small", 2, 0, save_every=5), 2, 10)
LEFT_OUT = "there is no figure of plain DDP in the same turn to compare it with"

WAITS_FOR_HELPER = WELL.replace(
    "    step(number)\n",
    """
    step(number)
    if number == 6:
        time.sleep(0.5)  # long enough to be looked at
        open(f"{OUT}/burn", "w")
        while not os.path.exists(f"{OUT}/burnt"):
            time.sleep(0.01)
""",
)
BURNS = """
import os, time
OUT = os.environ["BENCH_OUT"]
while not os.path.exists(f"{OUT}/burn"):
    time.sleep(0.01)
begun = time.process_time()
while time.process_time() - begun < 0.5:
    pass
open(f"{OUT}/burnt", "w")
time.sleep(100)
"""
"""Uses half a second of the processor between two steps that are timed."""


def rows_of(*contenders, repeats=1, job=JOB, timed=2):
    found = suite.measured("case", job, timed, list(contenders), repeats=repeats, warm_up=0)
    return {(one.contender, one.metric): one for one in found}


def marks(times, rank=0):
    return [{"what": "step", "step": step, "rank": rank, "t": t} for step, t in enumerate(times)]


# ------------------------------------------------------------------------ steps


def test_a_step_is_the_mean_over_whole_intervals_so_that_saves_are_in_it():
    times, now = [], 0.0
    for step in range(40):
        now += 1.0 + (5.0 if step and step % 10 == 0 else 0.0)  # the save after step 9 is before step 10
        times.append(now)
    found = suite.step_times([*marks(times), *marks([99.0] * 40, rank=1)], first=9, last=39)
    assert found == {"step_s": pytest.approx(1.5), "step_median_s": pytest.approx(1.0)}


def test_a_step_without_a_mark_is_a_failure_that_names_it():
    with pytest.raises(launched.Failed, match="no mark of step 7; there are 7 of others"):
        suite.step_times(marks(range(7)), first=4, last=9)


def test_a_job_has_an_interval_to_warm_up_those_that_are_timed_and_more():
    job = suite.jobs(quick=False)["50m-2"]
    assert job.steps == 10 * (1 + sum(suite.intervals("50m", quick=False)))
    quick = suite.jobs(quick=True)
    assert list(quick) == suite.names(quick=False)
    assert quick["50m-2"].steps < job.steps


# ------------------------------------------------------------------------ use


def test_use_is_looked_at_between_two_steps_and_memory_after_the_last(tmp_path, monkeypatch):
    cpu, memory = iter([10.0, 16.0]), iter([100.0, 300.0, 200.0])
    monkeypatch.setattr(run_processes, "cpu_seconds", lambda place: next(cpu))
    monkeypatch.setattr(run_processes, "memory_mib", lambda place: next(memory))
    monkeypatch.setattr("bench.steady.use.MEMORY_EVERY_S", 0.0)
    use = Use(first=4, last=9)
    file = (tmp_path / "marks.1.jsonl").open("a", buffering=1)
    for step in range(4):
        file.write(json.dumps({"what": "step", "rank": 0, "step": step}) + "\n")
    use(tmp_path)
    assert use.figures() == {}
    file.write('{"what": "step", "rank": 1, "step": 9}\n{"what": "noticed"}\n{"what": "step", "rank"')
    use(tmp_path)
    file.write(': 0, "step": 5}\n')
    use(tmp_path)
    file.write('{"what": "step", "rank": 0, "step": 9}\n')
    for _ in range(3):
        use(tmp_path)
    file.close()
    assert use.figures() == {"cpu_s": 1.5, "memory": 300.0}


# ------------------------------------------------------------------------ rows


def test_plain_ddp_is_the_baseline_of_the_others_and_no_floor(place):
    contenders = (Scripted(OURS), Scripted("peer"), Scripted("tuned peer", tuned=True), Scripted(BASE))
    rows = rows_of(*contenders, repeats=2)
    assert next(iter(rows))[0] == BASE
    assert {metric for _, metric in rows} == set(suite.METRICS)
    assert [one.why_missing for one in rows.values()] == [None] * 4 * len(suite.METRICS)
    for (who, metric), one in rows.items():
        base = rows[BASE, metric].median
        assert (one.floor, one.baseline, one.runs) == (None, None if who == BASE else base, 2)
        assert one.median > 0
    ours = rows[OURS, "step_to_ddp"]
    assert ours.goal == suite.GOAL
    assert ours.ratio_to_best_peer == pytest.approx(ours.median / rows["peer", "step_to_ddp"].median)
    assert ours.ratio_to_best_tuned_peer == pytest.approx(
        ours.median / rows["tuned peer", "step_to_ddp"].median
    )
    assert rows["peer", "step_s"].ratio_to_best_peer is None


def test_the_use_of_helpers_is_in_it(place):
    rows = rows_of(
        Scripted("plain"), Scripted("with a helper", scripts=(WAITS_FOR_HELPER,), helpers=(BURNS,))
    )
    burnt_a_step = 0.5 / 10
    assert rows["with a helper", "cpu_s"].median > rows["plain", "cpu_s"].median + 0.6 * burnt_a_step
    assert rows["with a helper", "memory"].median > 1.3 * rows["plain", "memory"].median


def test_without_plain_ddp_there_is_nothing_to_compare_with(place):
    rows = rows_of(failing(BASE), Scripted(OURS))
    assert rows[OURS, "step_to_ddp"].why_missing == LEFT_OUT
    assert rows[OURS, "step_s"].median > 0
    assert rows[OURS, "step_s"].baseline is None
    assert "RuntimeError: out of luck" in rows[BASE, "step_s"].why_missing


def test_a_step_is_compared_with_that_of_the_same_turn_only(place, tmp_path):
    ddp = flaky(BASE, tmp_path / "times", fails=[1, 2], script=WELL)  # both attempts of the second turn
    rows = rows_of(ddp, Scripted(OURS), repeats=3)
    assert (rows[BASE, "step_s"].runs, rows[OURS, "step_s"].runs) == (2, 3)
    assert rows[OURS, "step_to_ddp"].runs == 2
    assert rows[BASE, "step_s"].note.startswith("1 of 3 repeats have no figure; 2 failed attempts")


def test_what_is_over_before_it_could_be_looked_at_says_so(place):
    none_more = suite.of_intervals(Job("small", 2, 0, save_every=1), 1, 0)
    rows = rows_of(Scripted(BASE), job=none_more, timed=1)
    assert rows[BASE, "step_s"].median > 0
    assert rows[BASE, "memory"].why_missing in (None, "its steps were over before this could be looked at")
