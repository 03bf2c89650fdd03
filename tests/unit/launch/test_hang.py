import dataclasses

import pytest
from hypothesis import given, strategies as st

from hpresil.base.phases import PHASES
from hpresil.launch.hang import HangRule, Observed

TICK = 0.1


def worker(phase="computing", stamp_s=0.0, stamps=1, commits=5, **more):
    more.setdefault("has_state", commits > 0)
    return Observed(phase=phase, step=12, slot=3, stamp_s=stamp_s, stamps=stamps, commits=commits, **more)


def waiting(**more):
    return worker("waiting", **more)


def watch(rule, workers, start, end):
    """Tick from start to end with the same pages; return the first verdict that names somebody, and when."""
    now = start
    while now <= end:
        verdict = rule.observe(workers, now)
        if verdict.hung or verdict.spared:
            return verdict, now
        now += TICK
    return None, now


def test_who_computes_too_long_is_named_with_its_place():
    verdict, when = watch(HangRule(3.0, 600.0), {0: worker(), 1: waiting()}, 0.0, 10.0)
    (hang,) = verdict.hung
    assert hang.worker == 0
    assert 3.0 < when < 3.2
    assert str(hang) == f"hung in computing for {hang.seconds:.1f} s at step 12 slot 3"


@pytest.mark.parametrize("phase", ["waiting", "paused", "standby", "done"])
def test_who_waits_is_never_hung_by_itself(phase):
    verdict, _ = watch(HangRule(3.0, 600.0), {0: worker(phase), 1: waiting()}, 0.0, 30.0)
    assert verdict is None


@pytest.mark.parametrize("phase", ["outside", "tail"])
def test_user_code_outside_the_step_has_the_long_limit(phase):
    rule = HangRule(3.0, 20.0)
    verdict, when = watch(rule, {0: worker(phase), 1: waiting()}, 0.0, 30.0)
    assert verdict.hung
    assert 20.0 < when < 20.2


def test_the_limit_grows_with_what_was_seen():
    rule = HangRule(1.0, 600.0)
    for stamps in range(20):  # a stamp every half second
        last = stamps * 0.5
        pages = {0: worker(stamps=stamps, stamp_s=last), 1: waiting(stamps=stamps)}
        for tick in range(5):
            rule.observe(pages, last + tick * TICK)
    assert rule.limit(0, "computing") == pytest.approx(5.0)
    assert rule.limit(0, "applying") == 1.0


def test_gaps_before_the_first_commit_do_not_count():
    rule = HangRule(1.0, 600.0)
    rule.observe({0: worker(stamps=1, stamp_s=0.0, commits=0)}, 0.0)
    rule.observe({0: worker(stamps=2, stamp_s=0.4, commits=0)}, 0.4)
    assert rule.limit(0, "computing") == 1.0


def test_before_three_commits_the_others_set_the_limit():
    verdict, when = watch(HangRule(1.0, 600.0), {0: worker(commits=2), 1: waiting()}, 0.0, 10.0)
    assert verdict.hung[0].worker == 0
    assert 3.0 < when < 3.2


def test_nobody_is_judged_while_nobody_is_armed():
    verdict, _ = watch(HangRule(1.0, 600.0), {0: worker(commits=2), 1: waiting(commits=2)}, 0.0, 30.0)
    assert verdict is None


def test_a_stopped_member_is_named_even_when_it_waits():
    verdict, when = watch(HangRule(3.0, 600.0), {0: waiting(stopped=True), 1: waiting()}, 0.0, 10.0)
    assert str(verdict.hung[0]).startswith("hung, stopped in waiting for 3.")
    assert when < 3.3


def test_a_stopped_process_that_is_no_member_is_left_alone():
    pages = {0: worker("standby", stopped=True, member=False), 1: waiting(), 2: waiting()}
    verdict, _ = watch(HangRule(1.0, 600.0), pages, 0.0, 10.0)
    assert verdict is None


def test_who_owes_a_report_is_named():
    verdict, when = watch(HangRule(3.0, 600.0), {0: waiting(owes_since=2.0), 1: waiting()}, 2.0, 10.0)
    assert str(verdict.hung[0]).startswith("hung, no report in waiting for 3.")
    assert 5.0 < when < 5.2


def test_who_applies_may_owe_its_report_until_the_end_of_the_block():
    pages = {0: worker("tail", owes_since=2.0), 1: waiting()}
    verdict, _ = watch(HangRule(3.0, 600.0), pages, 2.0, 30.0)
    assert verdict is None


def test_a_newcomer_that_restores_has_time_by_size():
    rule = HangRule(1.0, 600.0)
    rule.state_bytes = int(5e9)
    verdict, when = watch(rule, {0: worker("restoring", commits=0), 1: waiting()}, 0.0, 30.0)
    assert verdict.hung[0].worker == 0
    assert 20.0 < when < 20.2


def test_a_late_tick_drops_the_observation_and_counts_anew():
    rule = HangRule(3.0, 600.0)
    pages = {0: worker(), 1: waiting()}
    rule.observe(pages, 0.0)
    assert not rule.observe(pages, 60.0).hung
    verdict, when = watch(rule, pages, 60.1, 70.0)
    assert verdict.hung
    assert 63.0 < when < 63.2


def test_everybody_at_once_is_reported_and_not_killed():
    verdict, _ = watch(HangRule(3.0, 600.0), {0: worker(), 1: worker()}, 0.0, 10.0)
    assert not verdict.hung
    assert {s.worker for s in verdict.spared} == {0, 1}
    assert "environment" in verdict.reason


def test_the_last_holder_of_state_is_spared():
    verdict, _ = watch(HangRule(3.0, 600.0), {0: worker(), 1: waiting(commits=0)}, 0.0, 10.0)
    assert not verdict.hung
    assert verdict.spared[0].worker == 0
    assert "last live copy" in verdict.reason


def test_the_last_holder_of_state_here_is_named_while_another_node_holds_it_too():
    rule, pages = HangRule(3.0, 600.0), {0: worker(), 1: waiting(commits=0)}
    verdicts = [rule.observe(pages, now * TICK, elsewhere=True) for now in range(40)]
    assert verdicts[-1].hung[0].worker == 0
    assert not any(verdict.spared for verdict in verdicts)


@pytest.mark.parametrize("other", [worker(), waiting(commits=0)])
def test_nobody_is_spared_for_ever(other):
    rule, pages = HangRule(3.0, 20.0), {0: worker(), 1: other}
    ticks = [(now * TICK, rule.observe(pages, now * TICK)) for now in range(400)]
    when, first = next((now, verdict) for now, verdict in ticks if any(h.worker == 0 for h in verdict.hung))
    assert 23.0 < when < 23.2, "as long as user code may take, after its limit"
    assert first.hung[0].seconds > 23.0
    assert any(verdict.spared for _, verdict in ticks), "it was spared until then"


pages_strategy = st.dictionaries(
    st.integers(0, 5),
    st.builds(
        Observed,
        phase=st.sampled_from(PHASES),
        step=st.integers(-1, 100),
        slot=st.integers(-1, 8),
        stamp_s=st.floats(0, 50),
        stamps=st.integers(0, 5),
        commits=st.integers(0, 6),
        stopped=st.booleans(),
        has_state=st.booleans(),
        member=st.booleans(),
        owes_since=st.none() | st.floats(0, 50),
    ),
    min_size=1,
)


@given(st.lists(pages_strategy, min_size=1, max_size=4))
def test_whatever_is_seen_state_survives_and_only_members_are_named(episodes):
    rule, now = HangRule(1.0, 5.0), 50.0
    for pages in episodes:
        for _ in range(80):
            now += TICK
            verdict = rule.observe(pages, now)
            named = {s.worker for s in verdict.hung}
            holders = {w for w, seen in pages.items() if seen.has_state}
            late = any(h.seconds > h.limit + rule.outside_s for h in verdict.hung)
            assert not holders or holders - named or late, "the last holder of state was named"
            assert all(pages[w].member for w in named)
            assert all(pages[w].phase != "paused" for w in named)
            members = {w for w, seen in pages.items() if seen.member}
            spared = len(members) <= 1 or not members <= named
            assert spared or late, "every member was named at once"


@given(st.floats(0.1, 10.0), st.integers(1, 6))
def test_who_stamps_in_time_is_never_named(period, others):
    rule, now, stamps, last = HangRule(3.0, 600.0), 0.0, 0, 0.0
    for _ in range(200):
        now += TICK
        if now - last >= min(period, 2.9):
            stamps, last = stamps + 1, now
        pages = {0: worker(stamps=stamps, stamp_s=last)}
        pages |= {w: dataclasses.replace(waiting(), stamps=stamps) for w in range(1, others + 1)}
        assert not rule.observe(pages, now).hung
