from hpresil.launch.picture import Picture
from hpresil.membership import messages as m


def commit(step, generation=1):
    return m.Committed(
        generation=generation,
        step=step,
        loss="0x0p+0",
        grad_norm="0x0p+0",
        samples="",
        state="",
        world_size=2,
    )


def two():
    picture = Picture()
    assert picture.view(m.View(generation=1, members=[4, 5]), 1.0)
    return picture


def test_a_view_counts_once():
    picture = two()
    assert not picture.view(m.View(generation=1, members=[4, 5]), 2.0)
    assert picture.installed_at == 1.0
    assert (picture.rank(5), picture.rank(9), picture.name(5)) == (1, -1, "worker 5 (rank 1)")


def test_a_step_is_complete_when_every_member_has_committed_it():
    picture = two()
    assert not picture.committed(4, commit(0))
    assert not picture.committed(4, commit(1))
    assert picture.committed(5, commit(0))
    assert picture.committed(5, commit(1))
    assert picture.step == 1
    assert picture.commits == {4: 2, 5: 2}


def test_commits_of_an_older_generation_complete_nothing():
    picture = two()
    picture.committed(4, commit(0))
    picture.view(m.View(generation=2, members=[4, 5]), 2.0)
    assert not picture.committed(5, commit(0))


def test_reports_are_owed_anew_in_each_view():
    picture = two()
    picture.reported.add(4)
    picture.view(m.View(generation=2, members=[4]), 2.0)
    assert picture.reported == set()


def test_who_is_lost_holds_nothing():
    picture = two()
    picture.ready_said(4, m.Ready(facts={}, version=3))
    picture.committed(4, commit(3))
    assert picture.holders == {4}
    picture.lost(4)
    assert (picture.holders, picture.ready, picture.commits) == (set(), set(), {})


def test_a_decision_counts_once():
    picture = two()
    decision = m.Decision(generation=1, target=0, sources={}, roll=[], slots=[[0], [1]])
    assert picture.decision(decision)
    assert not picture.decision(decision)
    assert picture.slots == [[0], [1]]


def test_who_had_the_state_at_the_last_decision_is_known_on_every_node():
    picture = two()
    picture.decision(m.Decision(generation=1, target=3, sources={5: 4}, roll=[], slots=[[0], [1]]))
    assert picture.sources == {4}, "5 has yet to copy it"
    picture.view(m.View(generation=2, members=[4, 5, 6]), 2.0)
    picture.decision(m.Decision(generation=2, target=4, sources={6: 4}, roll=[], slots=[[0], [1], []]))
    assert picture.sources == {4, 5}
    picture.view(m.View(generation=3, members=[5, 6]), 3.0)
    assert picture.sources == {5}
    picture.lost(5)
    assert not picture.sources
