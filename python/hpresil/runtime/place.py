"""Where in the user's script a call was made, for errors that name the line."""

from __future__ import annotations

import sys


def caller(depth: int = 2) -> str:
    """Return "file:line" of the frame ``depth`` levels up (2: whoever called the caller of this)."""
    frame = sys._getframe(depth)
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"
