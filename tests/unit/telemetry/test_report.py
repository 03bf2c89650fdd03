import re
from html.parser import HTMLParser

import pytest

import told_job
from hpresil.base.errors import ConfigError
from hpresil.telemetry import events, story
from hpresil.telemetry.report import page, png, shares
from hpresil.telemetry.report.curves import MOST_POINTS, thinned
from hpresil.telemetry.report.drawing import (
    ROLES,
    Box,
    Figure,
    Line,
    Words,
    log_ticks,
    number,
    seconds,
    ticks,
)
from hpresil.telemetry.report.presence import stretches
from hpresil.telemetry.report.recovery import KINDS, window
from hpresil.telemetry.story import Story


class Outline(HTMLParser):
    """The tags of a page, checked for being closed, and its words."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data.strip())


@pytest.fixture
def told(tmp_path):
    run = told_job.write(tmp_path / "run")
    story.write_injected(run, {"killed": (1, told_job.KILLED_AT)})
    return story.read(run)


@pytest.fixture
def figures(told):
    return {figure.name: figure for figure in page.figures(told)}


@pytest.fixture
def outline(told):
    parsed = Outline()
    parsed.feed(page.html(told, page.figures(told)))
    assert parsed.open == []
    return parsed


def test_the_page_has_all_figures_and_the_table_of_the_changes(outline):
    assert outline.tags.count("svg") == 6
    words = " ".join(outline.words)
    for part in (
        "productive",
        "waiting for data",
        "worker 1 killed",
        "group grows",
        "steps redone",
        "rank 1",
    ):
        assert part in words
    # Detection, regroup, restore, first step and total of the killed worker, in milliseconds.
    assert "worker 1 killed 4.00 10.0 40.0 30.0 221.0 301.0 0" in words


def test_the_page_needs_nothing_from_outside_and_runs_nothing(told, outline):
    assert not {"script", "iframe", "img", "object", "embed", "base"} & set(outline.tags)
    links = [value for name, value in outline.attributes if name in ("src", "href", "xlink:href", "action")]
    assert links == ["data:,"]
    text = page.html(told, page.figures(told))
    assert "url(" not in text
    assert "@import" not in text


def test_what_comes_from_the_job_is_escaped(told):
    assert "&lt;x&gt;&amp;" in page.html(told, [])
    assert "<x>" not in page.html(told, [])


def test_every_colour_has_a_light_and_a_dark_form_and_is_known(told):
    text = page.html(told, page.figures(told))
    assert set(re.findall(r"var\(--(\w+)\)", text)) <= set(ROLES)
    light, dark = text.split("prefers-color-scheme: dark")
    assert all(f"--{role}: {a};" in light and f"--{role}: {b};" in dark for role, (a, b) in ROLES.items())
    assert set(KINDS.values()) <= set(ROLES)


def test_the_title_of_a_figure_says_the_finding(figures):
    assert figures["loss"].title == (
        "The loss goes from 5 to 3.3 in 18 steps, each committed once, through 1 fault and 1 change of size"
    )
    assert figures["workers"].title == (
        "4 workers came, 1 was lost; the group had 2 to 3 members in 3 generations"
    )
    assert figures["recovery-1"].title == (
        "Generation 2: worker 1 killed; 301 ms to the next step, no step redone"
    )
    assert figures["recovery-2"].title == "Generation 3: the group grows within 201 ms, no step redone"
    assert "of 6.1 s was productive" in figures["goodput"].title


def test_a_job_without_a_fault_says_so(told):
    calm = Story(told.directory, [e for e in told.events if e["t"] < 5.0], told.traces)
    titles = {figure.name: figure.title for figure in page.figures(calm)}
    assert titles["loss"].endswith("each committed once, without a fault")
    assert titles["goodput"].endswith("was productive")
    assert "10 steps, no fault, no step made again" in page.html(calm, [])


def test_steps_that_are_missing_are_not_called_committed_once(told):
    torn = [e for e in told.events if e.get("step") != 7]
    (figure,) = [f for f in page.figures(Story(told.directory, torn)) if f.name == "loss"]
    assert "with steps missing or repeated" in figure.title


def test_everything_drawn_lies_on_the_canvas(figures):
    for figure in figures.values():
        for item in figure.items:
            places = (
                item.points
                if isinstance(item, Line)
                else [(item.x, item.y), (item.x + item.width, item.y + item.height)]
                if isinstance(item, Box)
                else [(item.x, item.y)]
            )
            for x, y in places:
                assert -1 <= x <= 961, (figure.name, item)
                assert -1 <= y <= figure.height + 1, (figure.name, item)


def test_axes_have_labels_with_units(figures):
    words = {name: [item.text for item in f.items if isinstance(item, Words)] for name, f in figures.items()}
    assert {"loss", "step"} <= set(words["loss"])
    assert {"steps/s", "seconds since the start"} <= set(words["speed"])
    assert "milliseconds since the fault" in words["recovery-1"]
    assert "milliseconds since the view" in words["recovery-2"]


def test_a_legend_names_every_colour_that_is_used_for_data(figures):
    chrome = {"ink", "muted", "grid", "surface"}
    for figure in figures.values():
        used = {item.role for item in figure.items} - chrome
        assert used <= {role for role, _ in figure.legend} | {"fault"}, figure.name


def test_the_bar_of_goodput_is_as_long_as_the_time(told):
    figure = shares.shares(told.goodput())
    assert figure is not None
    boxes = [item for item in figure.items if isinstance(item, Box)]
    assert abs(sum(box.width + 1 for box in boxes) - (shares.RIGHT - shares.LEFT)) < len(boxes) + 0.01


def test_a_worker_is_one_thing_after_the_other_without_a_gap(told):
    found = stretches(told, 2, 2.0, 7.1)
    assert [(part.role, part.words) for part in found] == [
        ("start", "starting"),
        ("spare", "spare"),
        ("compute", "rank 1"),
    ]
    assert [part.end for part in found[:-1]] == [part.begin for part in found[1:]]


def test_of_a_long_detection_only_the_end_is_shown(told):
    change = told.recoveries[0]
    assert window(change)[0] < change.at
    slow = Story(told.directory, told.events, told.traces, {1: -3000.0})
    late = slow.recoveries[0]
    assert window(late)[0] > late.at + 3000
    figure = next(f for f in page.figures(slow) if f.name == "recovery-1")
    assert "noticing it took 50.1 min" in figure.note


@pytest.mark.parametrize("count", [0, 1, 2, 9, 14, 25, 60])
def test_a_job_cut_off_anywhere_still_has_a_page(told, count):
    cut = told_job.events()[: count + 1]
    some = Story(told.directory, cut, told.traces)
    parsed = Outline()
    parsed.feed(page.html(some, page.figures(some)))
    assert parsed.open == []


def test_the_page_is_written_whole(told, tmp_path):
    page.write("text", tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["report.html"]


def test_pictures_show_each_figure_with_title_and_legend(told, tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed")
    found = page.figures(told)
    paths = png.write(found, tmp_path / "png")
    assert [path.stem for path in paths] == [figure.name for figure in found]
    for figure, path in zip(map(png.with_heading, found), paths, strict=True):
        pixels = image.imread(path)
        assert pixels.shape[:2] == (round(figure.height * png.SCALE), 960 * png.SCALE)
        assert len({tuple(pixel) for row in pixels[::7, ::7] for pixel in row}) > 5, f"{path} is blank"
        assert any(isinstance(item, Words) and item.text == figure.title for item in figure.items)


def test_without_matplotlib_pictures_are_refused_with_a_way_out(told, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match=r"pip install 'hpresil\[report\]'"):
        png.write(page.figures(told), tmp_path)


def test_ticks_are_round_and_inside():
    assert ticks(0, 10, 10) == list(range(11))
    assert ticks(0, 3, 10, whole=True) == [0, 1, 2, 3]
    assert ticks(5, 5, 10) == [5]
    assert [round(t, 6) for t in ticks(-0.1, 0.31, 4)] == [0.0, 0.2] or len(ticks(-0.1, 0.31, 4)) >= 2
    for low, high in ((0.011, 0.5), (1, 9), (3, 1e6), (6.1, 185.0)):
        found = log_ticks(low, high, 5)
        assert len(found) >= 2
        assert all(low <= value <= high for value in found)


def test_numbers_and_durations_are_short():
    assert [number(v) for v in (0, 1e-15, 0.25, 5.24601, 12345.6)] == ["0", "0", "0.25", "5.246", "12,346"]
    shown = [seconds(v) for v in (0.0015, 0.128, 0.9999, 65, 600, 10800)]
    assert shown == ["1.5 ms", "128 ms", "1.0 s", "65.0 s", "10.0 min", "3.0 h"]


def test_a_long_curve_is_thinned_and_keeps_its_peaks():
    points = [(float(n), 100.0 if n == 5001 else 1.0) for n in range(20000)]
    kept = thinned(points)
    assert len(kept) <= MOST_POINTS
    assert (5001.0, 100.0) in kept
    assert kept == sorted(kept)


def test_a_figure_is_not_made_of_nothing():
    only = Story(None, list(events.parse(b'{"t": 1.0, "event": "JobStarted"}\n')))  # type: ignore[arg-type]
    assert only.events
    assert page.figures(only) == []
    assert isinstance(Figure("n", "t", "", [], 1.0).items, list)
