"""What an agent says again after a takeover counts once."""

from hpresil.membership.tally import Tally


def test_messages_of_an_agent_are_numbered_from_where_it_joined() -> None:
    tally = Tally({})
    tally.joined("a", 0, known=False)
    assert [tally.next("a"), tally.next("a")] == [1, 2]
    tally.joined("b", 5, known=False)
    assert tally.next("b") == 6
    assert tally.came == {"a": 2, "b": 6}


def test_what_the_copy_holds_is_told_again_and_does_not_count() -> None:
    before = Tally({})
    before.joined("a", 0, known=False)
    for _ in range(4):
        before.applied("a", before.next("a"))
    assert before.next("a") == 5, "came, and nobody has decided on it yet"
    after = Tally(before.holds)
    after.joined("a", 2, known=True)  # two of them were heard for sure
    assert [after.next("a") for _ in range(5)] == [0, 0, 5, 6, 7]


def test_a_node_that_begins_anew_has_said_nothing_yet() -> None:
    tally = Tally({"a": 40})
    tally.joined("a", 0, known=False)
    assert tally.next("a") == 1


def test_an_older_number_takes_nothing_back() -> None:
    tally = Tally({"a": 7})
    tally.applied("a", 3)
    assert tally.holds["a"] == 7
