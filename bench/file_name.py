"""Names of files from names of cases and contenders, which may hold spaces, commas and slashes."""

from __future__ import annotations

import re


def file_name(*parts: str) -> str:
    """Return the parts with what no file name should hold replaced, joined by "-"."""
    return "-".join(re.sub(r"[^A-Za-z0-9.+-]+", "-", part).strip("-") for part in parts)
