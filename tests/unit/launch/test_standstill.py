"""In which way a hung worker stands still, from the times in its page."""

from __future__ import annotations

import pytest

from hpresil.launch.hang import HangRule, Observed
from hpresil.launch.standstill import words

NOW = 100.0


@pytest.mark.parametrize(
    ("native", "interpreter", "said"),
    [
        (99.5, 99.2, "the GIL is free"),
        (99.5, 97.0, "the GIL is held since 3.0 s"),
        (97.5, 97.0, "no thread of it has run for 2.5 s"),
        (0.0, 0.0, ""),
        (99.5, 0.0, ""),
    ],
)
def test_it_is_told_by_who_was_late(native: float, interpreter: float, said: str) -> None:
    assert words(98.0, native, interpreter, NOW).startswith(said)
    assert bool(words(98.0, native, interpreter, NOW)) == bool(said)


def test_a_lock_that_was_had_before_the_last_sign_of_progress_says_nothing() -> None:
    assert words(99.3, 99.5, 99.2, NOW) == ""


def test_a_hang_says_it_with_its_place() -> None:
    rule = HangRule(3.0, 600.0)
    stuck = Observed(
        "computing", 12, 3, 90.0, 1, commits=5, has_state=True, native_s=93.9, interpreter_s=90.1
    )
    other = Observed("waiting", 12, 3, 90.0, 1, commits=5, has_state=True)
    rule.observe({0: stuck, 1: other}, 93.8)
    (hang,) = rule.observe({0: stuck, 1: other}, 94.0).hung
    assert str(hang) == (
        "hung in computing for 4.0 s at step 12 slot 3; "
        "the GIL is held since 3.9 s, by a native call that does not release it"
    )
