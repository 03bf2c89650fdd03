"""Whatever happens in whatever order, the ladder keeps its promises; and what it does in the plain cases."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from hpresil.comm.ladder import (
    RUNGS,
    Abort,
    Changed,
    Climb,
    Failed,
    GiveUp,
    Ladder,
    Limits,
    Passed,
    Stop,
    Succeeded,
    Use,
    decide,
)

ALL = frozenset({"shrink", "revoke", "grow"})
NEEDS = {"revoke": "revoke", "shrink": "shrink", "grow": "grow", "initialise": None}


def changed(generation, lost=(), newcomers=0, fresh=False, ranks=4):
    return Changed(generation, ranks, frozenset(lost), newcomers, fresh, f"view {generation}")


def in_use(features=ALL):
    ladder, actions = decide(Ladder(frozenset(features)), changed(1, newcomers=4), 0.0)
    assert [type(a) for a in actions] == [Climb]
    ladder, actions = decide(ladder, Succeeded(1, "initialise"), 1.0)
    assert actions == (Use(1),)
    return ladder


def climbed(ladder, event, now=10.0):
    """All actions until the communicator is ready, every rung succeeding at once."""
    ladder, actions = decide(ladder, event, now)
    said = list(actions)
    while actions and isinstance(actions[-1], Climb):
        ladder, actions = decide(ladder, Succeeded(event.generation, actions[-1].rung), now)
        said += actions
    assert isinstance(said[-1], Use)
    return [action.rung if isinstance(action, Climb) else type(action).__name__ for action in said]


def test_a_lost_rank_and_its_replacement_climb_every_rung_there_is() -> None:
    assert climbed(in_use(), changed(2, [1], 1)) == ["revoke", "shrink", "grow", "Use"]
    assert climbed(in_use(), changed(2, [1])) == ["revoke", "shrink", "Use"]
    assert climbed(in_use(), changed(2, newcomers=2)) == ["grow", "Use"]


def test_what_a_version_cannot_do_is_initialised_anew_after_an_abort() -> None:
    assert climbed(in_use({"shrink"}), changed(2, [1])) == ["shrink", "Use"]
    assert climbed(in_use({"shrink"}), changed(2, [1], 1)) == ["Abort", "initialise", "Use"]
    assert climbed(in_use(()), changed(2, [1])) == ["Abort", "initialise", "Use"]
    assert climbed(in_use(), changed(2, [1], fresh=True)) == ["Abort", "initialise", "Use"]
    assert climbed(in_use(), changed(2)) == ["Abort", "initialise", "Use"]


def test_a_rung_that_is_late_is_given_up_and_the_next_change_begins_anew() -> None:
    ladder, _ = decide(in_use(), changed(2, [1]), 10.0)
    assert decide(ladder, Passed(), 11.9) == (ladder, ())
    ladder, actions = decide(ladder, Passed(), 12.0)
    assert actions == (Abort("revoke did not end within 2 s"), GiveUp(2, "revoke did not end within 2 s"))
    assert climbed(ladder, changed(3, [1], fresh=True)) == ["initialise", "Use"]


def test_a_change_in_the_middle_of_a_rung_has_nothing_to_build_on() -> None:
    ladder, _ = decide(in_use(), changed(2, [1]), 10.0)
    assert climbed(ladder, changed(3, [2])) == ["Abort", "initialise", "Use"]


def test_what_comes_late_has_no_effect() -> None:
    ladder, _ = decide(in_use(), changed(2, [1]), 10.0)
    for late in (Succeeded(1, "initialise"), Succeeded(2, "shrink"), Failed(1, "", "old"), changed(2, [3])):
        assert decide(ladder, late, 10.0) == (ladder, ())


def test_initialisations_that_fail_again_and_again_stop_the_job() -> None:
    ladder = Ladder(ALL, Limits(failures=2))
    for generation, last in ((1, GiveUp), (2, Stop)):
        ladder, _ = decide(ladder, changed(generation, newcomers=4), 0.0)
        ladder, actions = decide(ladder, Failed(generation, "initialise", "no route"), 0.0)
        assert isinstance(actions[-1], last)
        assert "no route" in actions[-1].reason
    assert decide(ladder, changed(3, newcomers=4), 0.0) == (ladder, ())


EVENTS = st.one_of(
    st.builds(
        changed,
        st.integers(0, 12),
        st.frozensets(st.integers(0, 3), max_size=3),
        st.integers(0, 3),
        st.booleans(),
    ),
    st.builds(Succeeded, st.integers(0, 12), st.sampled_from(RUNGS)),
    st.builds(Failed, st.integers(0, 12), st.sampled_from((*RUNGS, "")), st.just("why")),
    st.just(Passed()),
)


@settings(max_examples=300, deadline=None)
@given(
    features=st.frozensets(st.sampled_from(sorted(ALL))),
    events=st.lists(st.tuples(EVENTS, st.floats(0, 90)), max_size=40),
)
def test_every_history_keeps_the_promises(features, events) -> None:
    ladder, now, live = Ladder(features), 0.0, False
    for event, later in events:
        now += later
        before = ladder
        ladder, actions = decide(ladder, event, now)
        assert decide(before, event, now) == (ladder, actions), "a decision depends on nothing else"
        assert ladder.generation >= before.generation
        for action in actions:
            if isinstance(action, Abort):
                live = False
            elif isinstance(action, Climb):
                assert NEEDS[action.rung] in (None, *features), "a rung that this version does not have"
                assert action.generation == ladder.generation
                assert action.rung != "initialise" or not live, "two communicators at once"
                assert action.rung == "initialise" or live, "nothing to build on"
                live = True
            elif isinstance(action, Use):
                assert action.generation == ladder.generation
                assert not ladder.left
        assert ladder.holds == live
        if ladder.left:
            ended, fallen = decide(ladder, Passed(), now + 1000.0)
            assert not ended.left, "no rung waits without an end"
            assert fallen
