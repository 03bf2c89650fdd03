import pytest

from hpresil.telemetry.goodput import goodput


def event(t, name, **fields):
    return {"t": t, "event": name, **fields}


def job(workers=2):
    return [
        event(0.0, "JobStarted", workers=workers),
        event(3.0, "ViewInstalled", generation=1, members=list(range(workers))),
        event(3.5, "Decided", generation=1, target=0),
        event(4.0, "GroupBuilt", generation=1, worker=0),
        *(event(4.5 + step, "StepCompleted", step=step, generation=1) for step in range(4)),
    ]


def killed(t):
    return [
        event(t, "WorkerLost", worker=1, reason="killed", last_stamp=t - 0.1),
        event(t + 0.1, "ViewInstalled", generation=2, members=[0, 2]),
        event(t + 0.2, "Decided", generation=2, target=4),
        event(t + 0.4, "Restored", generation=2, worker=2),
    ]


def shares(events, **more):
    return {name: round(s, 6) for name, s in goodput(events, **more).items() if s}


def test_an_undisturbed_job_is_start_up_and_productive():
    found = shares([*job(), event(8.0, "JobEnded", status=0)])
    assert found == {"start-up": 3.5, "productive": 4.0, "other": 0.5}


def test_a_lost_worker_costs_detection_recovery_and_what_was_computed_again():
    # Step 4 takes 0.6 s before the fault and 0.9 s after the recovery, half a second more than usual.
    events = [*job(), *killed(8.2), event(9.5, "StepCompleted", step=4, generation=2)]
    found = shares(events)
    assert found == {
        "start-up": 3.5,
        "productive": 5.0,
        "detection": 0.1,
        "recovery": 0.4,
        "recomputed": 0.5,
    }


def test_a_known_time_of_the_fault_replaces_the_last_sign_of_life():
    events = [*job(), *killed(8.2), event(9.5, "StepCompleted", step=4, generation=2)]
    assert shares(events, fault_times={1: 8.195})["detection"] == 0.005


def test_a_smaller_group_is_productive_by_its_share():
    events = [
        *job(),
        event(7.5, "ViewInstalled", generation=2, members=[0]),
        event(7.5, "Decided", generation=2, target=4),
        event(9.5, "StepCompleted", step=4, generation=2),
    ]
    assert shares(events) == {"start-up": 3.5, "productive": 5.0, "degraded": 1.0}


def test_an_interrupted_step_is_compared_with_what_a_group_of_its_size_needs():
    lost = event(7.5, "WorkerLost", worker=1, last_stamp=7.5)
    events = [
        *job(),
        lost,
        event(7.5, "ViewInstalled", generation=2, members=[0]),
        event(7.5, "Decided", generation=2, target=4),
    ]
    assert shares([*events, event(10.0, "StepCompleted", step=4)])["recomputed"] == 0.5


def test_steps_made_again_are_recomputed():
    events = [*job(), event(8.0, "StepCompleted", step=2), event(9.0, "StepCompleted", step=3)]
    assert shares(events)["recomputed"] == 1.5


def test_waiting_for_data_is_taken_from_the_productive_time_of_its_step_only():
    assert shares(job(), data_waits={1: 0.25, 2: 7.0, 99: 1.0}) == {
        "start-up": 3.5,
        "productive": 2.75,
        "data": 1.25,
    }


def test_a_fault_that_nothing_follows_yet_is_recovery_until_now():
    assert shares([*job(), *killed(8.2)[:2], event(9.0, "Unknown")])["recovery"] == pytest.approx(0.8)


def test_a_second_loss_during_the_recovery_is_part_of_it():
    second = [
        event(8.5, "WorkerLost", worker=2, reason="killed", last_stamp=8.45),
        event(8.6, "ViewInstalled", generation=3, members=[0]),
        event(8.7, "Decided", generation=3, target=4),
        event(9.0, "StepCompleted", step=4, generation=3),
    ]
    found = shares([*job(), *killed(8.2)[:2], *second])
    assert (found["detection"], found["recovery"]) == (0.15, 0.45)


def test_the_loss_of_a_spare_costs_nothing():
    events = [*job(), event(7.6, "WorkerLost", worker=7, last_stamp=5.0), event(8.5, "StepCompleted", step=4)]
    assert shares(events) == {"start-up": 3.5, "productive": 5.0}


def shrunk(t, generation=2):
    return [
        event(t, "ResizeRequested", workers=1, before=2),
        event(t, "ViewInstalled", generation=generation, members=[0]),
        event(t, "Decided", generation=generation, target=4),
    ]


def test_a_group_that_was_asked_to_be_smaller_is_not_degraded_and_computes_nothing_again():
    # A step of one worker takes as long as two steps of two workers.
    events = [*job(), *shrunk(7.5), event(9.5, "StepCompleted", step=4, generation=2)]
    events += [event(9.6, "Resized", workers=1, members=[0]), event(11.5, "StepCompleted", step=5)]
    assert shares(events) == {"start-up": 3.5, "productive": 8.0}


def test_a_larger_size_counts_from_when_it_is_reached():
    grown = [
        event(7.5, "ResizeRequested", workers=4, before=2),
        event(8.5, "StepCompleted", step=4, generation=1),
        event(8.5, "ViewInstalled", generation=2, members=[0, 1, 2, 3]),
        event(8.5, "Decided", generation=2, target=5),
        event(8.5, "Resized", workers=4, members=[0, 1, 2, 3]),
        event(9.0, "StepCompleted", step=5, generation=2),
    ]
    lost = [
        event(9.0, "WorkerLost", worker=3, last_stamp=9.0),
        event(9.0, "ViewInstalled", generation=3, members=[0, 1]),
        event(9.0, "Decided", generation=3, target=6),
        event(10.0, "StepCompleted", step=6, generation=3),
    ]
    assert shares([*job(), *grown]) == {"start-up": 3.5, "productive": 5.5}
    assert shares([*job(), *grown, *lost])["degraded"] == 0.5


def test_a_group_larger_than_full_for_a_while_is_productive_and_no_more():
    events = [
        *job(),
        event(7.5, "ViewInstalled", generation=2, members=[0, 1, 2]),
        event(7.5, "Decided", generation=2, target=4),
        event(8.5, "StepCompleted", step=4, generation=2),
        event(8.5, "ViewInstalled", generation=3, members=[0, 2]),
        event(8.5, "Decided", generation=3, target=5),
        event(9.5, "StepCompleted", step=5, generation=3),
    ]
    found = shares(events)
    assert found["start-up"] + found["productive"] + found.get("recomputed", 0) == 9.5
    assert "degraded" not in found
