"""A picture shows what the rows say, and nothing else: bars, floors, goals, and who is missing and why."""

from __future__ import annotations

import json

import pytest
from bench import plots, rows, table
from bench.rows import missing, row
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

CASE = "sigkill-50m-2+1"
WHY = "torchft.txt cannot be installed: there is no network"
ENDS = {
    "noticed_s": 0.5, "regrouped_s": 2.0, "restored_s": 3.0, "first_full_group_step_s": 4.0,
    "caught_up_s": 6.0,
}  # fmt: skip


def recovered(name, ends, goal=None):
    whole = "first_full_group_step_s"
    for metric, seconds in ends.items():
        floor = 0.3 if metric == whole else None
        figures = [seconds * 0.9, seconds, seconds * 1.2]
        lines = {"floor": floor, "goal": goal if metric == whole else None}
        yield row("recovery", CASE, name, metric=metric, unit="s", figures=figures, **lines)
    yield row("recovery", CASE, name, metric="steps_redone", unit="1", figures=[5])
    yield row("recovery", CASE, name, metric="parts_repeated", unit="1", figures=[2])


def recovery_rows():
    return [
        *recovered("hpresil", {"first_full_group_step_s": 0.4}, goal=0.37),
        *recovered("torchrun + DCP", ENDS),
        missing("recovery", CASE, "torchft", "first_full_group_step_s", "s", why=WHY),
    ]


def steady_rows():
    for name, seconds, goal in (("plain", 0.5, None), ("hpresil", 0.25, 0.4)):
        figures = [seconds, seconds * 0.8, seconds * 1.2]
        yield row("steady", "50m-2", name, metric="step_s", unit="s", figures=figures, floor=0.5, goal=goal)
        yield row("steady", "50m-2", name, metric="memory", unit="MiB", figures=[700])


def words(picture: Figure) -> str:
    found = [text.get_text() for axes in picture.axes for text in (*axes.texts, *axes.get_yticklabels())]
    legends = [axes.get_legend() for axes in picture.axes if axes.get_legend()]
    return "\n".join([*found, *(text.get_text() for legend in legends for text in legend.get_texts())])


def bars(axes):
    return [(bar.get_x(), bar.get_width(), to_hex(bar.get_facecolor())) for bar in axes.patches]


def verticals(axes):
    return sorted(part[0, 0] for lines in axes.collections for part in lines.get_segments())


def only(taken) -> Figure:
    ((_, picture),) = plots.figures(list(taken), "caption")
    return picture


def test_a_recovery_is_a_bar_from_the_fault_that_is_cut_where_a_phase_ended() -> None:
    (axes,) = only(recovery_rows()).axes
    colours = [plots.PHASES[metric][1] for metric in ENDS]
    whole, *phases = [bar for bar in bars(axes) if bar[1]]
    assert whole == (0.0, 0.4, plots.PHASES[plots.WHOLE][1].lower())
    lengths = [(0.0, 0.5), (0.5, 1.5), (2.0, 1.0), (3.0, 1.0), (4.0, 2.0)]
    assert phases == [(*each, colour.lower()) for each, colour in zip(lengths, colours, strict=True)]


def test_it_shows_each_floor_and_the_goal_and_what_was_redone() -> None:
    picture = only(recovery_rows())
    assert verticals(picture.axes[0]) == [0.3, 0.37]
    assert "healthy step: 0.3" in words(picture)
    assert "goal: 0.37" in words(picture)
    assert "torchrun + DCP\n5 steps redone, 2 parts repeated" in words(picture)
    assert "4 (3.6 to 4.8)" in words(picture)


def test_who_is_missing_is_there_with_the_reason() -> None:
    assert f"not here: {WHY}" in words(only(recovery_rows()))
    assert [text for text in words(only(recovery_rows())).splitlines() if text == "torchft"]


def test_any_other_suite_has_a_panel_for_each_metric_with_bars_beside_floor_and_goal() -> None:
    times, memory = only(steady_rows()).axes
    assert [width for _, width, _ in bars(times)] == [0.5, 0.25]
    assert verticals(times) == [0.4, 0.5]
    assert [list(line.get_xdata()) for line in times.lines] == [[0.4, 0.6], [0.2, 0.3]]
    assert (times.get_xlabel(), memory.get_xlabel()) == ("step_s, s", "memory, MiB")
    assert not memory.lines, "one figure has no whisker"


def test_a_baseline_is_drawn_where_there_is_no_floor() -> None:
    taken = [
        row("steady", "50m-2", "hpresil", metric="step_s", unit="s", figures=[2], baseline=3),
        row("steady", "50m-2", "peer", metric="step_s", unit="s", figures=[4], baseline=3),
        row("steady", "50m-2", "hpresil", metric="gain", unit="ratio_up", figures=[2], floor=1, baseline=3),
    ]
    times, gains = only(taken).axes
    assert "baseline: 3" in words(only(taken[:2]))
    assert (verticals(times), verticals(gains)) == ([3], [1])
    assert gains.get_xlabel() == "gain, more is better"


def test_floors_that_differ_stand_on_their_own_bars() -> None:
    taken = [
        row("micro", "copy", name, metric="rate", unit="GB/s", figures=[5], floor=floor)
        for name, floor in (("a", 6), ("b", None), ("c", 7))
    ]
    (axes,) = only(taken).axes
    places = [(part[0, 0], part[:, 1].mean()) for lines in axes.collections for part in lines.get_segments()]
    assert places == [(6, 0), (7, 2)]


def test_the_model_is_a_line_for_each_system_in_the_band_of_what_was_varied() -> None:
    taken = []
    for gpus, share in ((10, 0.8), (1, 0.9)):
        taken.append(row("model", f"model-{gpus}k", "restart", metric="goodput", unit="1", figures=[share]))
        spread = [share - 0.1, share, share + 0.05]
        taken.append(
            row("model", f"model-{gpus}k", "restart", metric="goodput by x", unit="1", figures=spread)
        )
    picture = only(taken)
    (axes,) = picture.axes
    lines = [(list(line.get_xdata()), [round(y, 3) for y in line.get_ydata()]) for line in axes.lines]
    expected, least, most = ([0.9, 0.8], [0.8, 0.7], [0.95, 0.85])
    assert lines == [([1000, 10_000], ys) for ys in (expected, least, most)]
    (band,) = axes.collections
    assert band.get_datalim(axes.transData).intervaly == pytest.approx([0.7, 0.95])
    assert axes.get_xscale() == "log"
    assert "a model, not a measurement" in picture.get_suptitle()


def write(path, taken):
    rows.write(path, taken, {"cpu": "that one", "quick": False})
    return path


def test_pictures_are_written_and_the_same_rows_give_the_same_bytes(tmp_path, capsys) -> None:
    results = write(tmp_path / "r.json", [*recovery_rows(), *steady_rows()])
    for place in ("a", "b"):
        assert plots.main([str(results), "--out", str(tmp_path / place)]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [
        f"{case}.{kind}" for case in (f"recovery-{CASE}", "steady-50m-2") for kind in ("png", "svg")
    ]
    for name in names:
        first, second = ((tmp_path / place / name).read_bytes() for place in ("a", "b"))
        assert first == second
    assert b"dc:date" not in (tmp_path / "a" / "steady-50m-2.svg").read_bytes()
    assert str(tmp_path / "a" / "steady-50m-2.svg") in capsys.readouterr().out


def test_a_case_that_is_in_two_files_is_not_drawn_over(tmp_path, capsys) -> None:
    two = [str(write(tmp_path / name, steady_rows())) for name in ("a.json", "b.json")]
    with pytest.raises(SystemExit):
        plots.main([*two, "--out", str(tmp_path / "out")])
    assert "both hold steady-50m-2" in capsys.readouterr().err


def test_a_table_has_each_suite_of_a_file_below_what_its_figures_depend_on(tmp_path, capsys) -> None:
    assert table.main([str(write(tmp_path / "r.json", [*recovery_rows(), *steady_rows()]))]) == 0
    text = capsys.readouterr().out
    assert text.startswith("# r.json\n\ncpu that one, quick False\n\n## recovery\n")
    assert f"| {CASE} | torchrun + DCP | steps_redone | 1 | 5 | 5 | 5 |" in text.split("## steady")[0]
    assert "| 50m-2 | hpresil | step_s | s | 0.25 |" in text.split("## steady")[1]


@pytest.mark.parametrize("text", ["", "{}", json.dumps({"machine": {}, "rows": [{"suite": "x"}]})])
def test_a_file_without_rows_is_named(tmp_path, capsys, text) -> None:
    (tmp_path / "old.json").write_text(text)
    for command in (table.main, plots.main):
        with pytest.raises(SystemExit):
            command([str(tmp_path / "old.json")])
        assert "old.json holds no rows of a bench" in capsys.readouterr().err
