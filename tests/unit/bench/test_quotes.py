"""A figure in a document is the one of its results file, or the check says where it is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench import quotes, rows
from bench.rows import missing, row

ROOT = Path(__file__).parents[3]
WHOLE = "first_full_group_step_s"
PLACE = f"r.json; recovery; sigkill-50m-2+1; NVRx in-process, hot spare, tuned (a + b); {WHOLE}"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "bench" / "results").mkdir(parents=True)
    (tmp_path / "docs" / "guides").mkdir(parents=True)
    (tmp_path / "README.md").write_text(f"# A project\n{FIGURES}")
    case, name = "sigkill-50m-2+1", "NVRx in-process, hot spare, tuned (a + b)"
    taken = [
        row("recovery", case, name, metric=WHOLE, unit="s", figures=[2.0, 2.123, 2.5], floor=0.35, peer=4.0),
        row("recovery", case, "hpresil", metric="steps", unit="1", figures=[1200]),
        missing("recovery", case, "torchft", WHOLE, "s", why="it is not installed"),
    ]
    rows.write(tmp_path / "bench" / "results" / "r.json", taken, {})
    return tmp_path


def quote(said: str, text: str = "?") -> str:
    return f"<!-- quote {said} -->{text}<!-- /quote -->"


FIGURES = f"## Figures\n{quote(f'{PLACE}; .2f s', '2.12 s')}\n"


def written(project, line: str) -> str:
    (project / "README.md").write_text(f"# A project\n\n{line}\n{FIGURES}")
    quotes.rewrite(project)
    return (project / "README.md").read_text().splitlines()[2]


@pytest.mark.parametrize(
    ("said", "text"),
    [
        (".2f s", "2.12 s"),
        (".0f ms", "2123 ms"),
        (",.0f ms", "2,123 ms"),
        ("min; .1f s", "2.0 s"),
        ("max; .1f s", "2.5 s"),
        ("floor; .0f ms", "350 ms"),
        ("ratio; .2f", "0.53"),
        ("ratio; .0f %", "53 %"),
        (".1f", "2.1"),
    ],
)
def test_a_figure_is_written_as_its_format_says(project, said, text) -> None:
    line = f"| it took | {quote(f'{PLACE}; {said}')} | {quote(f'{PLACE}; .2f s')}, then |"
    assert written(project, line) == (
        f"| it took | {quote(f'{PLACE}; {said}', text)} | {quote(f'{PLACE}; .2f s', '2.12 s')}, then |"
    )
    assert quotes.check(project) == []


def test_everything_else_in_a_document_stays(project) -> None:
    page = project / "docs" / "guides" / "a.md"
    before = f"# 412 ms\r\n\n<!-- another comment -->\n{quote(f'{PLACE}; .2f s', '9 s')}"
    page.write_bytes(before.encode())
    quotes.rewrite(project)
    assert page.read_bytes() == before.replace("9 s", "2.12 s").encode()


def test_a_figure_that_is_not_the_files_fails_the_check_with_file_and_line(project, capsys) -> None:
    page = project / "docs" / "guides" / "a.md"
    page.write_text(f"# A\n\nIt took {quote(f'{PLACE}; .2f s', '1.90 s')}.\n")
    assert quotes.main(["--check"], project) == 1
    assert "docs/guides/a.md:3: '1.90 s' has to be '2.12 s'" in capsys.readouterr().out
    assert "1.90 s" in page.read_text(), "a check writes nothing"
    assert quotes.main([], project) == 0
    assert "2.12 s" in page.read_text()
    assert quotes.main(["--check"], project) == 0


@pytest.mark.parametrize(
    ("said", "what"),
    [
        (PLACE.replace("r.json", "none.json") + "; .2f s", "none.json holds no rows of a bench"),
        (PLACE.replace("tuned", "untuned") + "; .2f s", "there is NVRx in-process, hot spare, tuned (a + b)"),
        (PLACE.replace(WHOLE, "noticed_s") + "; .2f s", f"0 rows recovery; sigkill-50m-2+1; NVRx in-process, "
         f"hot spare, tuned (a + b); noticed_s; there is {WHOLE}"),
        (f"{PLACE}; goal; .2f s", "has no goal: it was measured without one"),
        (f"{PLACE}; mean; .2f s", "is no FILE; SUITE; CASE; CONTENDER; METRIC"),
        (f"{PLACE}; 2.12 s", "'2.12 s' is no number format"),
        (f"{PLACE}; .2f MiB", "'s' cannot be shown as 'MiB'"),
        (f"r.json; recovery; sigkill-50m-2+1; torchft; {WHOLE}; .2f s", "no median: it is not installed"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_named_with_file_and_line_and_left_alone(project, capsys, said, what) -> None:
    before = f"\n{quote(said, '2.12 s')}\n{FIGURES}"
    (project / "README.md").write_text(before)
    for arguments in (["--check"], []):
        assert quotes.main(arguments, project) == 1
        printed = capsys.readouterr().out
        assert printed.startswith("README.md:2: ")
        assert what in printed
    assert (project / "README.md").read_text() == before


def test_a_quote_that_does_not_end_is_no_figure(project) -> None:
    (project / "README.md").write_text(f"<!-- quote {PLACE}; .2f s -->2.12 s\n<!-- /quote -->\n{FIGURES}")
    (problem,) = quotes.check(project)
    assert (problem.line, problem.what) == (1, "a quote has to end on its line, with <!-- /quote -->")


def test_a_row_that_is_there_twice_cannot_be_quoted(project) -> None:
    place = project / "bench" / "results"
    about, taken = rows.read(place / "r.json")
    rows.write(place / "twice.json", taken + taken, about)
    with pytest.raises(ValueError, match=r"twice\.json holds 2 rows"):
        quotes.figure(f"{PLACE.replace('r.json', 'twice.json')}; .2f s", place)


def test_a_file_of_the_old_form_is_quoted_by_its_medians(project) -> None:
    place = project / "bench" / "results"
    medians = {"ddp": {"step_ms": 578.33}, "hpresil": {"step_ms": 321.71, "steps_redone": 0, "parts_ms": {}}}
    (place / "old.json").write_text(json.dumps({"medians": medians, "runs": []}))
    (place / "flat.json").write_text(json.dumps({"medians": {"noticed_ms": 59.12}}))
    assert quotes.figure("old.json; old form; medians; ddp; step_ms; .2f s", place) == "0.58 s"
    assert quotes.figure("old.json; old form; medians; hpresil; steps_redone; .0f", place) == "0"
    assert quotes.figure("flat.json; old form; medians; hpresil; noticed_ms; .0f ms", place) == "59 ms"


def test_the_figures_of_the_documents_are_those_of_the_results_files() -> None:
    assert "\n".join(map(str, quotes.check(ROOT))) == ""
    assert "<!-- /quote -->" in (ROOT / "README.md").read_text(), "a check of nothing proves nothing"


# ------------------------------------------------------------------------------- typed figures


def problems(project) -> list[str]:
    return [str(problem) for problem in quotes.check(project)]


@pytest.mark.parametrize("figure", ["412 ms", "2.12 s", "1.4x", "2,100 ms", "16.2 GB/s", "3 MiB/s", "40 %"])
def test_a_figure_that_is_typed_among_the_figures_of_the_readme_fails_the_check(project, figure) -> None:
    (project / "README.md").write_text(f"# A\n{FIGURES}| it took | {figure} |\n\n## Then\nafter {figure}\n")
    assert problems(project) == [
        f"README.md:4: {figure!r} is typed: figures of this section are quotes of a results file"
    ]


def test_what_is_no_figure_may_be_typed_there(project) -> None:
    text = "50 M parameters, 604 MB, 3 runs, 2 workers + 1 spare, commit 9a4cb78s, 2x2 nodes"
    (project / "README.md").write_text(f"{FIGURES}{text}\n")
    assert problems(project) == []


@pytest.mark.parametrize("text", ["# A\n", "# A\n\n## Figures\n\nThere are none.\n"])
def test_a_readme_without_a_quoted_figure_fails_the_check(project, text) -> None:
    (project / "README.md").write_text(text)
    (problem,) = problems(project)
    assert "there is no section 'Figures' with a quoted figure" in problem


TABLES = [
    "| it | took |\n| --- | --- |\n| a copy | 58 ms |\n",
    "| it | took, ms |\n| --- | --- |\n| it | 58 |\n",
]


@pytest.mark.parametrize("table", TABLES, ids=["unit in the cell", "unit in the head"])
def test_a_table_with_a_typed_figure_says_where_that_is_from(project, table) -> None:
    page = project / "docs" / "guides" / "a.md"
    page.write_text(f"# A\n\n[a file](../../bench/results/r.json)\n\n## B\n\n{table}")
    (problem,) = problems(project)
    assert problem.startswith("docs/guides/a.md:9: '58")
    for source in ("[all](../../bench/results/r.json)", "![it](it.png)", "these are no figures of record"):
        page.write_text(f"# A\n\n## B\n\n{source}\n\n{table}")
        assert problems(project) == []
    page.write_text(f"# A\n\n## B\n\n[all](../../bench/results/gone.json)\n\n{table}")
    assert problems(project) == ["docs/guides/a.md:3: ../../bench/results/gone.json is not there"]


def test_a_quoted_figure_in_a_table_needs_no_other_source(project) -> None:
    page = project / "docs" / "guides" / "a.md"
    page.write_text(f"# A\n\n| it | took |\n| --- | --- |\n| it | {quote(f'{PLACE}; .2f s', '2.12 s')} |\n")
    assert problems(project) == []
