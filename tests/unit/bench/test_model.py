"""The model's rows: what they are computed from, that they say so, and how far a constant moves them."""

from __future__ import annotations

import itertools

import pytest
from bench import __main__ as command, plots, quotes, rows
from bench.model import constants, suite
from bench.model.constants import DOWN_S, HERE, HOT_SPARE, MEASURED_AS, OURS, RESTART, newest, systems
from bench.model.goodput import LLAMA_3, goodput, lost_s
from bench.rows import row


def results(directory, name, **about):
    """Write a results file in which every contender takes a second more than the one before."""
    down = [
        row("recovery", constants.RECOVERY, who, metric="first_full_group_step_s", unit="s", figures=[n])
        for n, who in enumerate(MEASURED_AS.values(), about.pop("first", 1))
    ]
    ratios = [
        row("steady", constants.STEADY, who, metric="step_to_ddp", unit="1", figures=[ratio])
        for who, ratio in zip(MEASURED_AS.values(), (1.1, 1.0, 0.6), strict=True)
    ]
    pause = row(
        "snapshot", constants.SNAPSHOT, constants.SAVED_BY, metric="blocked_s", unit="s", figures=[0.2]
    )
    rows.write(directory / name, [*down, *ratios, pause], {"quick": False} | about)


def test_every_constant_is_the_newest_committed_figure(tmp_path) -> None:
    results(tmp_path, "all.json", date="2026-11-24 10:00 UTC")
    restart, hot_spare, ours = systems(tmp_path)
    assert [one.system.name for one in (restart, hot_spare, ours)] == [RESTART, HOT_SPARE, OURS]
    assert [one.system.down_s for one in (restart, hot_spare, ours)] == [1, 2, 3]
    assert [one.system.save_pause_s for one in (restart, hot_spare, ours)] == [0.2, 0.2, 0]
    assert restart.system.slower == pytest.approx(0.1)
    assert restart.sources["down_s"] == restart.sources["slower"] == "all.json"


def test_faster_than_plain_ddp_on_cpus_counts_as_equal(tmp_path) -> None:
    results(tmp_path, "all.json")
    assert [one.system.slower for one in systems(tmp_path)][1:] == [0, 0]


def test_without_results_the_constants_are_those_of_the_module_and_say_so(tmp_path) -> None:
    (tmp_path / "old.json").write_text('{"medians": {}}')
    for one in systems(tmp_path):
        assert one.system.down_s == DOWN_S[one.system.name]
        down = constants.DOWN_FILE if one.system.name == OURS else constants.ASSUMED
        assert one.sources == dict.fromkeys(one.sources, HERE) | {"down_s": down}


def test_the_constant_that_names_a_file_is_what_that_file_says() -> None:
    said = "; ".join([constants.DOWN_FILE, *constants.DOWN_PLACE, ".3f s"])
    assert quotes.figure(said, constants.RESULTS) == f"{DOWN_S[OURS]:.3f} s"


def test_the_newest_file_is_that_of_the_latest_date(tmp_path) -> None:
    results(tmp_path, "z-2026-11-22.json", first=10)
    results(tmp_path, "a-2026-11-23.json", first=20)
    assert newest(tmp_path, "recovery", constants.RECOVERY)[0] == "a-2026-11-23.json"
    results(tmp_path, "b.json", first=30, date="2026-11-24 00:10 UTC")
    name, taken = newest(tmp_path, "recovery", constants.RECOVERY)
    assert (name, taken[0].median) == ("b.json", 30)


def test_a_quick_run_is_no_source(tmp_path) -> None:
    results(tmp_path, "quick-2026-11-24.json", quick=True)
    assert newest(tmp_path, "recovery", constants.RECOVERY) == ("", [])


def test_every_row_says_that_it_is_of_a_model() -> None:
    taken = [one for case in suite.names(False) for one in suite.rows(case, False)]
    assert all(one.suite == "model" and one.case.startswith("model-") and one.runs is None for one in taken)
    scales = {one.case for one in taken if one.metric == "goodput"}
    assert {"model-1k", "model-10k", "model-100k"} <= scales
    assert {one.contender for one in taken if one.metric == "goodput"} == set(MEASURED_AS)
    sources = [one.case for one in taken if one.metric == "down_s"]
    assert len(sources) == 3
    assert all(case.split("(")[1].rstrip(")") for case in sources)


def found(case):
    return {(one.contender, one.metric): one for one in suite.rows(case, False)}


def test_the_rows_are_the_formulas() -> None:
    mine = found("model-10k")
    given = {one.system.name: one.system for one in systems()}
    for name, system in given.items():
        assert mine[name, "goodput"].median == goodput(system, 10_000)
        percent = 100 * lost_s(system, 10_000, LLAMA_3) / lost_s(given[RESTART], 10_000, LLAMA_3)
        assert mine[name, "downtime"].median == pytest.approx(percent)
    assert mine[RESTART, "downtime"].median == 100
    assert mine[OURS, "downtime"].median < mine[HOT_SPARE, "downtime"].median < 100


@pytest.mark.parametrize("case", ["model-1k", "model-100k"])
def test_one_constant_at_a_time_moves_the_figure_to_both_sides(case) -> None:
    mine = found(case)
    varied = ("failure rate x 0.3 to x 3", "cost of joining x 0 to x 3", "time down x 0.3 to x 100",
              "pause of a save x 0.1 to x 10")  # fmt: skip
    for name, constant in itertools.product(MEASURED_AS, varied):
        one = mine[name, f"goodput by {constant}"]
        assert one.median == mine[name, "goodput"].median
        if name == OURS and constant.startswith("pause"):
            assert one.min == one.median == one.max, "it saves nothing in order to recover"
        else:
            assert one.min < one.median < one.max


def test_the_model_is_a_part_of_all_with_tables_and_a_picture(tmp_path, monkeypatch, capsys) -> None:
    cases = ["model-constants", "model-1k", "model-10k"]
    monkeypatch.setattr("sys.argv", ["bench", "all", *cases, "--json", str(tmp_path / "all.json")])
    command.main()
    assert f"| model-10k | {OURS} | goodput | 1 |" in capsys.readouterr().out
    assert plots.main([str(tmp_path / "all.json"), "--out", str(tmp_path / "pictures")]) == 0
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["model-goodput.png", "model-goodput.svg"]


def test_joining_that_is_paid_ahead_is_what_keeps_failures_cheap_at_scale() -> None:
    by_join = found("model-100k")[OURS, "downtime by cost of joining x 0 to x 3"]
    assert by_join.min < 5 < 90 < by_join.median
