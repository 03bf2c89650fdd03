"""Where a measured figure may be typed into a document, and where it has to be quoted (`bench/quotes.py`).

A measured figure is a number with a unit of time or rate, a factor or a share (412 ms, 2.1 GB/s, 1.4x, 56 %),
in tables also a number alone where the head of a column has the unit.

* In the section "Figures" of README.md each is in a quote, and there is one at least.
* In docs/ a section with a typed figure in a table says where that is from: it links to a file of
  bench/results, shows the picture that it is read from, or has the words "no figures of record".
* Figures of LIMITS are rules, not measurements, and so are those that stand in sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

README, FIGURES = Path("README.md"), "Figures"
LIMITS = (Path("docs/failure-model.md"), Path("docs/settings.md"))
UNITS = "ms|s|µs|GB/s|MiB/s|%|x"
MEASURED = re.compile(rf"(?<![\w.,])\d[\d.,]*\s?(?:{UNITS})(?![\w/])")
HEAD = re.compile(rf"(?:^|[ ,(])(?:{UNITS})\)?$")
SOURCE = re.compile(r"\]\(([^)\s]*bench/results/[^)\s]+)\)")
PICTURE, NO_RECORD = re.compile(r"!\[[^\]]*\]\("), "no figures of record"
QUOTED = "<!-- /quote -->"
Lines = list[tuple[int, str]]
"""Their numbers, and their text."""


def found(place: Path, text: str, root: Path) -> Iterator[tuple[int, str]]:
    """Yield line and what is wrong there, for a document whose quotes are empty."""
    if place == README:
        yield from _readme(text)
    elif place not in LIMITS:
        for section in sections(text):
            yield from _tables(section, (root / place).parent)


def sections(text: str) -> Iterator[Lines]:
    """Yield the lines of each section; its heading is the first of them."""
    mine: Lines = []
    fenced = False
    for number, line in enumerate(text.splitlines(), 1):
        fenced ^= line.lstrip().startswith("```")
        if line.startswith("#") and not fenced:
            yield mine
            mine = []
        mine.append((number, line))
    yield mine


def _readme(text: str) -> Iterator[tuple[int, str]]:
    mine = [lines for lines in sections(text) if lines and lines[0][1].lstrip("# ") == FIGURES]
    if not any(QUOTED in line for lines in mine for _, line in lines):
        yield (mine[0][0][0] if mine else 1), f"there is no section {FIGURES!r} with a quoted figure"
    for lines in mine:
        for number, line in lines:
            for figure in MEASURED.findall(line):
                yield number, f"{figure!r} is typed: figures of this section are quotes of a results file"


def _tables(section: Lines, folder: Path) -> Iterator[tuple[int, str]]:
    text = "\n".join(line for _, line in section)
    sources = SOURCE.findall(text)
    yield from (
        (section[0][0], f"{source} is not there") for source in sources if not (folder / source).is_file()
    )
    if sources or PICTURE.search(text) or NO_RECORD in text:
        return
    units = False
    for before, (number, line) in zip([(0, ""), *section], section, strict=False):
        if not line.startswith("|"):
            continue
        if not before[1].startswith("|"):
            units = any(HEAD.search(cell.strip()) for cell in line.split("|"))
        elif (typed := MEASURED.search(line)) or (units and (typed := re.search(r"\d[\d.,]*", line))):
            yield number, f"{typed[0]!r} is typed, and its section links to no file of bench/results"
            return  # one is enough to find the table
