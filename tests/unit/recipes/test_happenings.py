from hpresil.recipes.demo.happenings import Ended, Lost, Started, StepCommitted, StoodBy, Viewed, happening


def event(name: str, **fields):
    return {"t": 12.5, "wall": 0.0, "event": name, **fields}


def test_each_event_that_concerns_the_demo_is_understood():
    assert happening(event("WorkerStarted", worker=3, index=3, pid=99, spare=True)) == Started(3, 99)
    assert happening(event("WorkerReady", worker=3, pristine=False)) == StoodBy(3)
    assert happening(event("WorkerLost", worker=1, rank=1, reason="hung", status=None)) == Lost(1, "hung")
    assert happening(event("ViewInstalled", generation=2, members=[0, 3])) == Viewed(2, [0, 3])
    assert happening(
        event("StepCommitted", step=4, generation=2, world_size=2, loss=5.5, worker=0)
    ) == StepCommitted(4, 5.5, 2, 2, 12.5)
    assert happening(event("JobEnded", status=0, reason="done", worker=-1)) == Ended(0, "done")


def test_a_worker_of_the_first_view_that_is_ready_is_no_spare():
    assert happening(event("WorkerReady", worker=0, pristine=True)) is None


def test_other_events_are_passed_over():
    assert happening(event("FrameSealed", version=3, frame=0)) is None
    assert happening(event("SomethingNew")) is None
