"""The report in a real browser: it shows something, asks for nothing from outside, and no script fails."""

from __future__ import annotations

import pytest

import browser
import told_job
from hpresil.telemetry import story
from hpresil.telemetry.report import page

pytestmark = pytest.mark.skipif(
    browser.found() is None,
    reason=f"no browser: none of {', '.join(browser.NAMES)} is on PATH, and BROWSER_FOR_TESTS is not set",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    directory = tmp_path_factory.mktemp("report")
    told = story.read(told_job.write(directory / "run"))
    page.write(page.html(told, page.figures(told)), directory / "report.html")
    return directory / "report.html"


@pytest.fixture(scope="module", params=["light", "dark"])
def visited(report, request):
    theme = request.param
    return theme, browser.visit(report, report.parent / theme, height=3400, dark=theme == "dark")


def rows(picture):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib is not installed: no PNG reader")
    return image.imread(picture)[:, :, :3]


def test_the_browser_makes_no_request_over_a_network(visited):
    _, seen = visited
    assert seen.requests == []


def test_nothing_complains(visited):
    _, seen = visited
    assert seen.complaints == []


def test_the_picture_shows_the_page_in_its_theme(visited):
    theme, seen = visited
    pixels = rows(seen.picture)
    assert pixels.shape[:2] == (3400, 1100)
    corner = float(pixels[0, 0].mean())
    assert corner > 0.9 if theme == "light" else corner < 0.2
    differs = (abs(pixels - pixels[0, 0]).sum(axis=2) > 0.1).mean(axis=1)
    # Every stretch of 200 rows in the upper part shows something, and much of it is not empty.
    for start in range(0, 2600, 200):
        assert differs[start : start + 200].max() > 0.05, f"rows {start} to {start + 200} are blank ({theme})"
    colours = {tuple((pixel * 255).round().astype(int)) for pixel in pixels[::5, ::5].reshape(-1, 3)}
    assert len(colours) > 25


def test_a_page_that_asks_for_something_is_found_out(tmp_path):
    # The checks above would see it: a picture from a server that is not there, and a script that throws.
    bad = tmp_path / "bad.html"
    bad.write_text('<img src="http://127.0.0.1:9/x.png"><script>throw new Error("boom")</script>')
    seen = browser.visit(bad, tmp_path / "visit", height=300)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert any("boom" in line for line in seen.complaints)
