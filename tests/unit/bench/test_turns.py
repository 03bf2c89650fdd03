"""Contenders take turns; one that fails now and then keeps its figures, one that cannot run says so once."""

from __future__ import annotations

import pytest
from bench.contenders import Contender, environment, launched
from bench.contenders.turns import take_turns
from bench.rows import BROKEN

A, B = Contender("a"), Contender("b")


class Measured:
    """Returns how often it was called before, or raises what is planned for that call."""

    def __init__(self, **plans):
        self.plans = plans
        self.calls = []

    def __call__(self, contender):
        number = self.calls.count(contender.name)
        self.calls.append(contender.name)
        plan = self.plans.get(contender.name, {})
        error = plan.get(number) if isinstance(plan, dict) else plan
        if error is not None:
            raise error
        return number


def test_all_are_measured_in_each_turn_and_the_first_turns_do_not_count():
    measured = Measured()
    turns = take_turns([A, B], measured, repeats=2, warm_up=1)
    assert measured.calls == ["a", "b"] * 3
    assert turns.taken == {"a": [1, 2], "b": [1, 2]}
    assert turns.numbers == {"a": [0, 1], "b": [0, 1]}
    assert (turns.why, turns.notes) == ({}, {})


def test_a_turn_that_fails_is_tried_once_more_and_noted():
    measured = Measured(a={1: launched.Failed("rank-1 ended with status 1: RuntimeError: a bad day")})
    turns = take_turns([A, B], measured, repeats=3, warm_up=0)
    assert measured.calls == ["a", "b", "a", "a", "b", "a", "b"]
    assert turns.taken["a"] == [0, 2, 3]
    assert turns.notes == {
        "a": "1 failed attempt, the last: rank-1 ended with status 1: RuntimeError: a bad day"
    }


def test_half_of_the_repeats_are_enough():
    bad = launched.Failed("no luck")
    turns = take_turns([A], Measured(a={1: bad, 2: bad, 4: bad, 5: bad}), repeats=4, warm_up=0)
    assert turns.taken == {"a": [0, 3]}
    assert turns.numbers == {"a": [0, 2]}
    assert turns.notes["a"] == "2 of 4 repeats have no figure; 4 failed attempts, the last: no luck"


def test_less_than_half_are_not_and_then_nobody_tries_again():
    measured = Measured(a={number: ValueError(f"failure {number}") for number in range(1, 20)})
    turns = take_turns([A, B], measured, repeats=5, warm_up=0)
    assert turns.taken == {"b": [0, 1, 2, 3, 4]}
    assert turns.why == {"a": "failure 6"}
    assert measured.calls.count("a") == 7


def test_who_never_came_to_an_end_is_out_after_two_attempts():
    measured = Measured(a=launched.Failed("no luck"))
    turns = take_turns([A, B], measured, repeats=5, warm_up=1)
    assert measured.calls.count("a") == 2
    assert turns.why == {"a": "no luck"}


@pytest.mark.parametrize("error", [launched.Cannot("one node"), environment.Unavailable("no network")])
def test_what_trying_again_does_not_change_is_tried_once(error):
    measured = Measured(a=error)
    turns = take_turns([A, B], measured, repeats=5, warm_up=1)
    assert measured.calls.count("a") == 1
    assert turns.why == {"a": str(error)}
    assert turns.taken["b"] == [1, 2, 3, 4, 5]


def test_a_fault_of_the_bench_is_called_one_and_the_others_go_on(capsys):
    turns = take_turns([A, B], Measured(a=IndexError("list index out of range")), repeats=1, warm_up=0)
    assert turns.why == {"a": f"{BROKEN}IndexError: list index out of range"}
    assert turns.taken == {"b": [0]}
    assert "Traceback" in capsys.readouterr().err


def test_why_it_failed_is_one_line_and_says_where_the_logs_are():
    error = launched.Failed("rank-1 ended\nand more")
    error.add_note("its logs are in there")
    turns = take_turns([A], Measured(a=error), repeats=1, warm_up=0)
    assert turns.why == {"a": "rank-1 ended; its logs are in there"}
