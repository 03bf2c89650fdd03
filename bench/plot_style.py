"""How pictures of figures look, and how they are written: plain, colours that everybody can tell apart.

The colours are those of Okabe and Ito ("Color Universal Design", 2008).
"""

from __future__ import annotations

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

INK, MUTED = "#222222", "#666666"
OURS, AMONG = "#0072B2", "#A6A6A6"
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
WIDTH_INCHES = 9.0
DOTS_PER_INCH = 144
SALT = "hpresil"
"""With it the names inside of an SVG do not change from one run to the next."""


def figure(height_inches: float, title: str, caption: str) -> Figure:
    """Return an empty picture with a title above it and a caption below."""
    made = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained", facecolor="white")
    made.suptitle(title, fontsize=11, color=INK, x=0.01, ha="left")
    made.supxlabel(caption, fontsize=6.5, color=MUTED, x=0.01, ha="left", wrap=True)
    return made


def save(picture: Figure, directory: Path, name: str) -> list[Path]:
    """Write ``NAME.png`` and ``NAME.svg`` there; return their paths."""
    directory.mkdir(parents=True, exist_ok=True)
    return [write(picture, directory / f"{name}.{kind}") for kind in ("png", "svg")]


def write(picture: Figure, path: Path) -> Path:
    """Write a picture in the form that the path's end names; return the path."""
    with rc_context({"svg.hashsalt": SALT}):
        metadata = {"Date": None} if path.suffix == ".svg" else None
        picture.savefig(path, dpi=DOTS_PER_INCH, metadata=metadata)
    return path


def value(number: float) -> str:
    """Return three digits of a number, without an exponent where people use none."""
    return f"{number:.3g}" if abs(number) < 1000 else f"{number:.0f}"
