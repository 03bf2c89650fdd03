"""A figure in a document is the one of its results file, or the check says where it is not."""

from __future__ import annotations

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
    (tmp_path / "README.md").write_text("# A project\n")
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


def written(project, line: str) -> str:
    (project / "README.md").write_text(f"# A project\n\n{line}\n")
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
    before = f"\n{quote(said, '2.12 s')}\n"
    (project / "README.md").write_text(before)
    for arguments in (["--check"], []):
        assert quotes.main(arguments, project) == 1
        printed = capsys.readouterr().out
        assert printed.startswith("README.md:2: ")
        assert what in printed
    assert (project / "README.md").read_text() == before


def test_a_quote_that_does_not_end_is_no_figure(project) -> None:
    (project / "README.md").write_text(f"<!-- quote {PLACE}; .2f s -->2.12 s\n<!-- /quote -->\n")
    (problem,) = quotes.check(project)
    assert (problem.line, problem.what) == (1, "a quote has to end on its line, with <!-- /quote -->")


def test_a_row_that_is_there_twice_cannot_be_quoted(project) -> None:
    place = project / "bench" / "results"
    about, taken = rows.read(place / "r.json")
    rows.write(place / "twice.json", taken + taken, about)
    with pytest.raises(ValueError, match=r"twice\.json holds 2 rows"):
        quotes.figure(f"{PLACE.replace('r.json', 'twice.json')}; .2f s", place)


def test_the_figures_of_the_documents_are_those_of_the_results_files() -> None:
    assert "\n".join(map(str, quotes.check(ROOT))) == ""
