from hpresil.recipes.demo.conductor import Act, Conductor, Part, Script
from hpresil.recipes.demo.happenings import (
    Ended,
    Happening,
    Joined,
    Lost,
    Started,
    StepCommitted,
    StoodBy,
    Viewed,
)

PID = 100  # pid of worker 0; worker n has PID + n


class Job:
    """A job on paper: it tells the conductor what a real one would."""

    def __init__(self, **script: float):
        self.now = 0.0
        self.conductor = Conductor(Script(**script), now=0.0)
        self.step, self.generation, self.members = 0, 0, []
        self.acts: list[Act] = []

    def see(self, seen: Happening) -> list[Act]:
        self.now += 0.1
        acts = self.conductor.observe(seen, self.now)
        self.acts += acts
        return acts

    def start(self, *workers: int) -> list[Act]:
        return [act for worker in workers for act in self.see(Started(worker, PID + worker))]

    def view(self, *members: int) -> list[Act]:
        self.generation, self.members = self.generation + 1, list(members)
        return self.see(Viewed(self.generation, self.members))

    def commit(self, steps: int) -> list[Act]:
        acts = []
        for _ in range(steps):
            acts += self.see(StepCommitted(self.step, 5.0, self.generation, len(self.members), self.now))
            self.step += 1
        return acts

    def until_killed(self) -> None:
        self.start(0, 1, 2, 3)
        self.view(0, 1, 2)
        self.see(StoodBy(3))
        self.commit(8)

    def until_hung(self) -> None:
        self.until_killed()
        self.see(Lost(1, "killed"))
        self.start(4)
        self.view(0, 3, 2)
        self.commit(5)

    def until_shrunk(self) -> None:
        self.until_hung()
        self.see(Lost(2, "hung"))
        self.view(0, 3)

    def until_grown(self) -> None:
        self.until_shrunk()
        self.commit(6)
        self.see(StoodBy(4))
        self.view(0, 3, 4)


def deeds(acts: list[Act]) -> list[tuple[str, int]]:
    return [(act.deed, act.pid) for act in acts]


def test_the_whole_story():
    job = Job(steps=40)
    job.until_grown()
    job.commit(50)
    assert deeds(job.acts) == [
        ("kill", PID + 1),
        ("hold", PID + 4),
        ("stop", PID + 2),
        ("let_go", PID + 4),
        ("drain", 0),
    ]
    job.see(Ended(0, "drained"))
    assert job.conductor.part is Part.OVER
    assert job.conductor.problem == ""
    assert {kind: worker for kind, (worker, _) in job.conductor.faults.items()} == {"killed": 1, "hung": 2}


def test_with_two_nodes_one_of_them_is_lost_and_comes_back():
    job = Job(steps=20, nodes=2)
    job.see(Joined("node1", 7))
    job.until_shrunk()
    job.see(Started(5, PID + 5, "node1"))
    job.see(StoodBy(5))
    job.view(0, 3, 5)
    assert deeds(job.commit(5)) == [("lose_node", 7)]
    assert job.conductor.faults["node lost"][0] == 5
    job.see(Lost(5, "node lost"))
    job.view(0, 3)
    assert job.commit(30) == []
    job.see(Joined("node1", 8))
    job.see(Started(6, PID + 6, "node1"))
    job.view(0, 3, 6)
    assert deeds(job.commit(5)) == [("drain", 0)]


def test_a_job_without_a_member_elsewhere_has_no_node_to_lose():
    job = Job(steps=20, nodes=2)
    job.until_grown()
    assert deeds(job.commit(5)) == [("drain", 0)]
    assert "no member is on another node" in job.conductor.problem


def test_nobody_is_killed_before_a_spare_is_ready():
    job = Job()
    job.start(0, 1, 2, 3)
    job.view(0, 1, 2)
    assert job.commit(20) == []
    job.see(StoodBy(3))
    assert deeds(job.commit(1)) == [("kill", PID + 1)]


def test_nobody_is_killed_in_the_first_steps():
    job = Job(first_fault_at=8)
    job.start(0, 1, 2, 3)
    job.view(0, 1, 2)
    job.see(StoodBy(3))
    assert job.commit(7) == []
    assert deeds(job.commit(1)) == [("kill", PID + 1)]


def test_steps_of_an_older_generation_are_not_calm():
    job = Job()
    job.until_killed()
    job.start(4)
    late = StepCommitted(job.step, 5.0, job.generation, 3, 0.0)
    job.view(0, 3, 2)
    for _ in range(10):
        assert job.see(late) == []


def test_a_replacement_that_starts_only_after_the_stop_is_held_as_well():
    job = Job()
    job.until_killed()
    job.view(0, 3, 2)
    assert deeds(job.commit(5)) == [("stop", PID + 2)]
    assert deeds(job.start(4)) == [("hold", PID + 4)]
    assert deeds(job.view(0, 3)) == [("let_go", PID + 4)]


def test_a_replacement_that_starts_after_the_shrink_is_not_held():
    job = Job()
    job.until_shrunk()
    assert job.start(5) == []


def test_no_worker_is_stopped_while_a_spare_is_ready():
    job = Job()
    job.until_killed()
    job.view(0, 3, 2)
    job.see(StoodBy(4))
    assert job.commit(50) == []


def test_a_spare_in_place_of_a_shrink_is_a_problem():
    job = Job()
    job.until_hung()
    assert deeds(job.view(0, 3, 9)) == [("let_go", PID + 4), ("drain", 0)]
    assert "the group did not shrink" in job.conductor.problem


def test_the_run_goes_on_until_the_wished_steps():
    job = Job(steps=60)
    job.until_grown()
    assert job.commit(60 - job.step - 1) == []
    assert deeds(job.commit(1)) == [("drain", 0)]


def test_the_run_does_not_end_in_the_recovery():
    job = Job(steps=10)
    job.until_grown()
    assert job.commit(4) == []
    assert deeds(job.commit(1)) == [("drain", 0)]


def test_an_overdue_part_drains_the_job_once_and_says_what_was_waited_for():
    job = Job(part_timeout_s=30.0)
    job.until_hung()
    assert job.conductor.tick(job.now + 29.0) == []
    assert deeds(job.conductor.tick(job.now + 31.0)) == [("let_go", PID + 4), ("drain", 0)]
    assert job.conductor.tick(job.now + 99.0) == []
    assert job.conductor.problem == (
        "waited 30 s until the hung worker is noticed and the group shrinks, in vain"
    )


def test_a_replacement_that_died_is_not_let_go():
    job = Job()
    job.until_hung()
    job.see(Lost(4, "killed"))
    assert deeds(job.view(0, 3)) == []


def test_a_job_that_ends_by_itself_is_a_problem():
    job = Job()
    job.until_killed()
    job.see(Ended(1, "no worker is left"))
    assert job.conductor.part is Part.OVER
    assert job.conductor.problem == "the job ended early: no worker is left"
