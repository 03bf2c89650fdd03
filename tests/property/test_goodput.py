"""Whatever events a job leaves, the shares of its time are not negative and add up to the time elapsed."""

import math

from hypothesis import given, settings, strategies as st

from hpresil.telemetry.goodput import CATEGORIES, Ledger, goodput

WORKERS = st.integers(0, 5)
STEPS = st.integers(0, 6)
EVENTS = st.one_of(
    st.builds(lambda w: {"event": "JobStarted", "workers": w}, st.integers(1, 4)),
    st.builds(
        lambda w, back: {"event": "WorkerLost", "worker": w, "back": back},
        WORKERS,
        st.one_of(st.none(), st.floats(-1.0, 20.0)),
    ),
    st.builds(lambda members: {"event": "ViewInstalled", "members": members}, st.lists(WORKERS, unique=True)),
    st.builds(lambda step: {"event": "StepCompleted", "step": step}, STEPS),
    st.builds(lambda step: {"event": "StepCommitted", "step": step}, STEPS),
    st.sampled_from(
        [
            {"event": name}
            for name in ("Decided", "GroupBuilt", "Restored", "Saved", "JobEnded", "WorkerLeft", "Unknown")
        ]
    ),
)
STORIES = st.lists(st.tuples(st.floats(0.0, 10.0), EVENTS), max_size=40)
WAITS = st.dictionaries(STEPS, st.floats(0.0, 30.0))


def story(parts):
    """Return events with times that grow by the first of each pair."""
    t, found = 100.0, []
    for gap, event in parts:
        t += gap
        back = event.get("back")
        found.append({**event, "t": t, "last_stamp": None if back is None else t - back})
    return found


@settings(max_examples=400, deadline=None)
@given(STORIES, WAITS, st.dictionaries(WORKERS, st.floats(90.0, 300.0)))
def test_the_shares_add_up_to_the_time_elapsed(parts, waits, faults):
    events = story(parts)
    shares = goodput(events, fault_times=faults, data_waits=waits)
    assert set(shares) == set(CATEGORIES)
    assert all(seconds >= -1e-9 for seconds in shares.values()), shares
    elapsed = events[-1]["t"] - events[0]["t"] if events else 0.0
    assert math.isclose(sum(shares.values()), elapsed, abs_tol=1e-6)


@settings(max_examples=200, deadline=None)
@given(STORIES, st.floats(0.0, 5.0))
def test_at_any_moment_of_a_running_job_the_shares_add_up_too(parts, later):
    ledger = Ledger()
    for event in story(parts):
        ledger.add(event)
        now = event["t"] + later
        assert math.isclose(sum(ledger.totals(now).values()), now - 100.0 - parts[0][0], abs_tol=1e-6)


@settings(max_examples=200, deadline=None)
@given(STORIES)
def test_what_is_settled_is_not_taken_back(parts):
    ledger, before = Ledger(), dict.fromkeys(CATEGORIES, 0.0)
    for event in story(parts):
        ledger.add(event)
        if event["event"] == "StepCompleted":
            now = ledger.totals()
            assert all(now[name] >= before[name] - 1e-9 for name in CATEGORIES if name != "other")
            before = now
