"""The snapshot suite: what marks mean, what stands beside what, and that a torn snapshot is no snapshot."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import pytest
import torch
from bench.snapshot import suite
from bench.snapshot.contenders import CONTENDERS, COPIES, NOTHING, OURS, SCRIPTS, WORKLOAD, Dlrover, Trainer
from bench.snapshot.figures import METRICS, figures

CHECKED = {"what": "checked"}
IDLE, BUSY = Trainer("16mib", 1, 1), Trainer("small", 1, 1, does="busy")
DCP = "DCP async_save, copied in the background"


def save(when, blocked_s, done_s):
    return {"what": "save", "when": when, "blocked_s": blocked_s, "done_s": done_s}


def methods(*names):
    """Return these methods, in the environment of the tests."""
    return [replace(method, requirements="") for method in CONTENDERS if method.name in names]


def by_metric(rows):
    return {(one.contender, one.metric): one for one in rows}


@pytest.fixture
def trainer(monkeypatch):
    monkeypatch.syspath_prepend(WORKLOAD)
    monkeypatch.syspath_prepend(SCRIPTS)
    import trainer

    yield trainer
    for name in ("trainer", "workload"):
        sys.modules.pop(name)


# --------------------------------------------------------------------- what marks mean


def test_a_state_that_may_change_later_and_one_that_is_to_change_at_once_are_told_apart():
    later = [save("later", blocked_s, 9.0) for blocked_s in (0.1, 0.2, 0.9)]
    at_once = [save("at once", blocked_s, blocked_s + 1) for blocked_s in (3.0, 4.0, 5.0)]
    found = figures("idle", [*later, *at_once, CHECKED])
    assert found == {"blocked_s": 0.2, "blocked_at_once_s": 4.0, "done_s": 5.0}


def test_a_step_that_pays_for_several_counts_for_several():
    pair = {"what": "pair", "plain": [1.0, 1.0], "steps": [1.0, 3.0], "blocked": [0.0, 2.0], "cores": 1}
    assert figures("busy", [pair, CHECKED]) == {"step_s": 2.0, "step_to_none": 2.0, "blocked_s": 1.0}


def test_steps_are_compared_with_those_of_the_same_time():
    slow = {"what": "pair", "plain": [10.0], "steps": [11.0], "blocked": [1.0], "cores": 1}
    quick = {"what": "pair", "plain": [1.0], "steps": [1.1], "blocked": [0.1], "cores": 1}
    assert figures("busy", [slow, quick, CHECKED])["step_to_none"] == pytest.approx(1.1)


def test_a_busy_trainer_with_an_idle_core_beside_it_has_no_figures():
    pair = {"what": "pair", "plain": [1.0], "steps": [1.1], "blocked": [0.1]}
    with pytest.raises(ValueError, match="its trainer had 2 cores and computes on 1"):
        figures("busy", [pair | {"cores": 1}, pair | {"cores": 2}, CHECKED])


def test_a_busy_trainer_and_all_that_it_starts_are_pinned_to_one_core(tmp_path):
    (tmp_path / "script.py").write_text(
        "import os, subprocess, sys\n"
        "of = 'import os; print(len(os.sched_getaffinity(0)))'\n"
        "print(len(os.sched_getaffinity(0)), sys.argv[1:], flush=True)\n"
        "subprocess.run([sys.executable, '-c', of], check=True)\n"
    )
    command = [sys.executable, SCRIPTS / "pinned.py", "1", tmp_path / "script.py", "busy", "sync"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert ran.stdout == "1 ['busy', 'sync']\n1\n"


@pytest.mark.parametrize(("job", "pinned"), [(IDLE, False), (BUSY, True)], ids=["idle", "busy"])
def test_only_a_busy_trainer_is_pinned(job, pinned, tmp_path):
    (method,) = methods(OURS)
    (process,) = method.processes(job, tmp_path, "python", [])
    assert (SCRIPTS / "pinned.py" in process.command) is pinned


def test_a_method_that_cannot_run_says_why():
    with pytest.raises(ValueError, match="it needs a moon"):
        figures("idle", [save("later", 1, 1), {"what": "cannot", "why": "it needs a moon"}])


def test_a_process_that_ends_before_its_snapshot_was_looked_at_has_no_figures():
    with pytest.raises(ValueError, match="before its last snapshot was looked at"):
        figures("idle", [save("later", 1, 1), save("at once", 1, 1)])


# --------------------------------------------------------------------- what stands beside what


def given(monkeypatch, seconds):
    """Have each method take so long for everything, or not run, and return who ran in which order."""
    ran = []

    def run(method, job):
        ran.append(method.name)
        if isinstance(seconds[method.name], str):
            raise ValueError(seconds[method.name])
        return dict.fromkeys(METRICS[job.does], seconds[method.name])

    monkeypatch.setattr(suite, "run", run)
    return ran


def test_methods_take_turns_and_one_that_failed_has_none(monkeypatch):
    ran = given(monkeypatch, {COPIES: 1.0, OURS: 2.0, "torch.save": "no disk"})
    rows = list(suite.measured("case", IDLE, methods(COPIES, OURS, "torch.save"), repeats=3))
    assert ran == [COPIES, OURS, "torch.save", "torch.save", COPIES, OURS, COPIES, OURS]
    assert {one.runs for one in rows if one.contender == OURS} == {3}
    assert len(rows) == 9


def test_hpresil_stands_beside_the_floor_the_goal_and_the_best_peer(monkeypatch):
    given(monkeypatch, {COPIES: 0.5, OURS: 2.0, "torch.save": 8.0, DCP: 4.0})
    rows = by_metric(suite.measured("case", IDLE, methods(COPIES, OURS, "torch.save", DCP), repeats=1))
    ours, theirs, floor = (rows[name, "blocked_at_once_s"] for name in (OURS, DCP, COPIES))
    assert (ours.floor, ours.goal, ours.ratio_to_best_peer) == (0.5, 0.025, 0.5)
    assert (theirs.floor, theirs.goal, theirs.ratio_to_best_peer) == (0.5, None, None)
    assert (floor.floor, floor.ratio_to_best_peer) == (None, None)
    assert (rows[OURS, "done_s"].floor, rows[OURS, "done_s"].goal) == (0.5, None)


def test_nobody_has_to_wait_for_a_state_that_changes_later_so_that_has_no_floor(monkeypatch):
    given(monkeypatch, {COPIES: 0.5, OURS: 2.0})
    rows = by_metric(suite.measured("case", IDLE, methods(COPIES, OURS), repeats=1))
    assert (rows[OURS, "blocked_s"].floor, rows[OURS, "blocked_s"].goal) == (None, 0.025)


def test_the_step_without_snapshots_is_a_row_and_no_floor_and_no_peer(monkeypatch):
    given(monkeypatch, {NOTHING: 1.0, OURS: 2.0})
    rows = by_metric(suite.measured("case", BUSY, methods(NOTHING, OURS, COPIES), repeats=1))
    assert (rows[OURS, "step_to_none"].floor, rows[OURS, "step_to_none"].goal) == (None, 1.01)
    assert {one.floor for one in rows.values()} == {None}
    assert rows[NOTHING, "step_s"].median == 1.0
    assert rows[OURS, "step_s"].ratio_to_best_peer is None


def test_the_quick_form_has_small_cases_with_names_of_their_own():
    quick, whole = suite.jobs(quick=True), suite.jobs(quick=False)
    assert not set(quick) & set(whole)
    assert {(job.size, job.steps) for job in quick.values()} == {("256mib", 1), ("5m", 1)}
    assert set(suite.MEMORY_GIB) == {job.size for job in (quick | whole).values()}


def test_what_cannot_run_is_a_row_that_says_why(monkeypatch):
    given(monkeypatch, {COPIES: "no memory", OURS: 2.0})
    rows = by_metric(suite.measured("case", IDLE, methods(COPIES, OURS), repeats=2))
    for metric in METRICS["idle"]:
        assert rows[COPIES, metric].why_missing == "no memory"
        assert rows[COPIES, metric].median is None
        assert rows[OURS, metric].floor is None, "there is no floor without its figures"


def test_the_floor_copies_everything_on_all_cores(trainer, tmp_path, monkeypatch):
    import take_copies

    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2})
    tensors = {f"p{number}": torch.full((8,), float(number)) for number in range(5)}
    state = trainer.State({}, tmp_path, lambda: tensors)
    with closing(take_copies.Copies(state)) as floor:
        trainer.check(state, floor, 1)
        assert len(floor._others) == 2
    sys.modules.pop("take_copies")


def test_the_quick_form_has_each_method_idle_and_one_of_each_system_busy(monkeypatch):
    ran = given(monkeypatch, dict.fromkeys([method.name for method in CONTENDERS], 1.0))
    list(suite.rows("256mib-idle", quick=True))
    assert ran == [method.name for method in CONTENDERS if method.name != NOTHING]
    ran.clear()
    list(suite.rows("5m-busy", quick=True))
    of = {method.name: method.script[0] for method in CONTENDERS if method.name != COPIES}
    assert sorted(of[name] for name in ran) == sorted(set(of.values()))
    assert {OURS, NOTHING} < set(ran)


def test_every_method_has_a_script_requirements_and_a_name_of_its_own():
    assert len({method.name for method in CONTENDERS}) == len(CONTENDERS)
    for method in CONTENDERS:
        assert (SCRIPTS / method.script[0]).is_file()
        assert not method.requirements or (WORKLOAD.parent / method.requirements).is_file()
    assert [method.name for method in CONTENDERS if not method.requirements] == [OURS]


def test_what_a_run_leaves_elsewhere_is_removed(tmp_path, monkeypatch):
    run = tmp_path / "hpresil-bench-of-a-test" / "run"
    (method,) = (one for one in CONTENDERS if isinstance(one, Dlrover))
    (process,) = method.processes(IDLE, run, "python", [])
    name = process.environment["TORCHELASTIC_RUN_ID"]
    left = [tmp_path / "shm" / f"{name}_ckpt_shm_0", tmp_path / "sock" / name / "lock.sock"]
    others = [tmp_path / "shm" / "other_ckpt_shm_0", tmp_path / "sock" / "other" / "lock.sock"]
    for path in (*left, *others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.setattr("bench.snapshot.contenders.MEMORY", tmp_path / "shm")
    monkeypatch.setattr("bench.snapshot.contenders.SOCKETS", tmp_path / "sock")
    method.remove_leftovers(run)
    assert [path.exists() for path in (*left, *others)] == [False, False, True, True]


# --------------------------------------------------------------------- the trainer


def test_a_method_that_keeps_no_copy_is_found_out(trainer, tmp_path):
    tensors = {f"p{number}": torch.full((8,), float(number)) for number in range(3)}
    state = trainer.State(dict(tensors), tmp_path, lambda: tensors)

    class Alias(trainer.Method):
        def loaded(self):
            return tensors

    class Copy(trainer.Method):
        def save(self, version):
            self._held = {name: tensor.clone() for name, tensor in tensors.items()}

        def loaded(self):
            return self._held

    trainer.check(state, Copy(), 1)
    with pytest.raises(trainer.Torn, match="3 of 3 tensors"):
        trainer.check(state, Alias(), 2)


def test_only_files_of_older_versions_are_removed(trainer, tmp_path):
    for name in ("1", "2", "11", "store"):
        (tmp_path / name).touch()
    (tmp_path / "3").mkdir()
    trainer.State({}, tmp_path, dict).remove_before(11)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["11", "store"]


@pytest.mark.parametrize(
    ("job", "names"), [(IDLE, (OURS, DCP)), (BUSY, (OURS,))], ids=["idle, beside DCP", "busy"]
)
def test_a_quick_run_gives_every_figure_and_leaves_nothing_behind(job, names, monkeypatch, tmp_path):
    monkeypatch.setattr(suite, "_place", lambda need_gib: tmp_path)
    rows = list(suite.measured("small", job, methods(*names), repeats=1))
    assert [one.why_missing for one in rows] == [None] * len(names) * len(METRICS[job.does])
    assert all(one.median > 0 and one.runs == 1 for one in rows)
    assert list(tmp_path.iterdir()) == []
