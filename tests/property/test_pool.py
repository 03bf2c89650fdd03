"""Stand-ins: what stands by, what is taken, and that nothing is used twice or kept for the dead."""

from __future__ import annotations

from hypothesis import given, settings, strategies as st

from hpresil.comm.pool import (
    Abort,
    Failed,
    Installed,
    Made,
    Make,
    Pool,
    Suspend,
    Suspended,
    Take,
    after_one_loss,
    decide,
)


def test_the_views_after_a_loss_have_the_spare_in_the_lost_place_or_close_up() -> None:
    each = [frozenset({worker}) for worker in (1, 2, 3)]
    assert after_one_loss((1, 2, 3), [9], each) == ((9, 2, 3), (1, 9, 3), (1, 2, 9))
    assert after_one_loss((1, 2, 3), [], each) == ((2, 3), (1, 3), (1, 2))
    node = frozenset({2, 3, 9})  # a node is lost with its spare
    assert after_one_loss((1, 2, 3), [9, 8], [node]) == ((1, 8),)
    assert after_one_loss((1,), [], [frozenset({1})]) == ()


def test_a_stand_in_is_made_suspended_and_taken() -> None:
    living = frozenset({1, 2, 9})
    pool, actions = decide(Pool(can_suspend=True), Installed((1, 2), ((9, 2), (1, 9)), living))
    assert actions == (Make((9, 2)),)
    pool, actions = decide(pool, Made((9, 2)))
    assert actions == (Suspend((9, 2)),)
    pool, actions = decide(pool, Suspended((9, 2)))
    assert actions == (Make((1, 9)),)
    pool, actions = decide(pool, Installed((9, 2), (), living - {1}))
    assert actions == (Take((9, 2), True), Abort((1, 9), "a member is gone"))
    assert pool.stand_ins == ()


def test_without_suspension_as_many_stay_active_as_are_allowed() -> None:
    event = Installed((1, 2), ((9, 2), (1, 9)), frozenset({1, 2, 9}))
    assert decide(Pool(can_suspend=False), event)[1] == ()
    pool, actions = decide(Pool(can_suspend=False, keep_active=1), event)
    assert actions == (Make((9, 2)),)
    pool, actions = decide(pool, Made((9, 2)))
    assert actions == ()
    assert decide(pool, Installed((9, 2), (), frozenset({2, 9})))[1] == (Take((9, 2), False),)


def test_an_answer_to_what_was_not_asked_has_no_effect() -> None:
    event = Installed((1, 2), ((9, 2),), frozenset({1, 2, 9}))
    pool, _ = decide(Pool(can_suspend=False, keep_active=1), event)
    assert decide(pool, Suspended((9, 2))) == (pool, ())
    pool, _ = decide(pool, Made((9, 2)))
    assert decide(pool, Suspended((9, 2))) == (pool, ())
    assert decide(pool, Made((9, 2))) == (pool, ())
    assert decide(pool, Installed((9, 2), (), frozenset({2, 9})))[1] == (Take((9, 2), False),)


def test_one_that_fails_is_not_tried_again_before_the_next_view() -> None:
    event = Installed((1, 2), ((9, 2),), frozenset({1, 2, 9}))
    pool, _ = decide(Pool(can_suspend=True), event)
    pool, actions = decide(pool, Failed((9, 2), "no route"))
    assert actions == (Abort((9, 2), "no route"),)
    assert decide(pool, Made((9, 2))) == (pool, ()), "what is gone has no effect"
    assert decide(pool, event)[1] == (Make((9, 2)),)


WORKERS = st.integers(0, 6)
MEMBERS = st.lists(WORKERS, min_size=1, max_size=4, unique=True).map(tuple)
EVENTS = st.one_of(
    st.builds(
        Installed, MEMBERS, st.lists(MEMBERS, max_size=5, unique=True).map(tuple), st.frozensets(WORKERS)
    ),
    st.builds(Made, MEMBERS),
    st.builds(Suspended, MEMBERS),
    st.builds(Failed, MEMBERS, st.just("why")),
)


@settings(max_examples=300, deadline=None)
@given(
    suspends=st.booleans(),
    keep=st.integers(0, 3),
    most=st.integers(0, 4),
    events=st.lists(EVENTS, max_size=30),
    help=st.booleans(),
)
def test_every_history_keeps_the_promises(suspends, keep, most, events, help) -> None:
    pool, alive = Pool(suspends, most=most, keep_active=keep), set()
    for event in events:
        if help and pool.stand_ins and not isinstance(event, Installed):
            members, state = pool.stand_ins[-1]  # answers that fit, or little would ever be ready
            event = Made(members) if state == "making" else Suspended(members)
        pool, actions = decide(pool, event)
        for action in actions:
            if isinstance(action, Make):
                assert action.members not in alive, "made twice"
                alive.add(action.members)
            elif isinstance(action, Take | Abort):
                assert action.members in alive, "one that is not there"
                alive.discard(action.members)
            if isinstance(action, Take):
                assert isinstance(event, Installed)
                assert action.members == event.members
                assert action.suspended == suspends
            if isinstance(action, Suspend):
                assert suspends
        assert alive == {members for members, _ in pool.stand_ins}
        assert len(alive) <= pool.room
        assert sum(state in ("making", "suspending") for _, state in pool.stand_ins) <= 1
        if isinstance(event, Installed):
            assert all(event.living.issuperset(members) for members in alive), "kept for the dead"
