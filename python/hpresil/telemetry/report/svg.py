"""A figure as inline SVG; colours are variables of the page, so that it follows the reader's theme."""

from __future__ import annotations

from html import escape

from hpresil.telemetry.report.drawing import ROLES, WIDTH, Box, Figure, Item, Line


def svg(figure: Figure) -> str:
    """Return the figure as an ``<svg>`` element that scales with its column."""
    shown = "\n".join(map(_element, figure.items))
    label = escape(figure.title, quote=True)
    return (
        f'<svg viewBox="0 0 {WIDTH} {figure.height:g}" role="img" aria-label="{label}" '
        f'xmlns="http://www.w3.org/2000/svg">\n{shown}\n</svg>'
    )


def variables(dark: bool) -> str:
    """Return the colours of a theme as CSS variables."""
    return " ".join(f"--{role}: {colours[dark]};" for role, colours in ROLES.items())


def _element(item: Item) -> str:
    if isinstance(item, Line):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in item.points)
        dash = ' stroke-dasharray="4 3"' if item.dashed else ""
        return (
            f'<polyline points="{points}" fill="none" style="stroke:var(--{item.role})" '
            f'stroke-width="{item.width:g}" stroke-linejoin="round"{dash}>{_tip(item.tip)}</polyline>'
        )
    if isinstance(item, Box):
        opacity = f' opacity="{item.opacity:g}"' if item.opacity < 1 else ""
        return (
            f'<rect x="{item.x:.2f}" y="{item.y:.2f}" width="{max(0.0, item.width):.2f}" '
            f'height="{item.height:.2f}" style="fill:var(--{item.role})"{opacity}>{_tip(item.tip)}</rect>'
        )
    weight = ' font-weight="600"' if item.bold else ""
    return (
        f'<text x="{item.x:.1f}" y="{item.y:.1f}" font-size="{item.size:g}" text-anchor="{item.anchor}" '
        f'style="fill:var(--{item.role})"{weight}>{escape(item.text)}</text>'
    )


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""
