"""The key-value store of a generation."""

from __future__ import annotations

from hpresil.membership.messages import StoreValues
from hpresil.membership.rendezvous import MAX_BYTES, Answer, Rendezvous


def test_a_request_is_answered_when_its_last_key_is_there() -> None:
    store = Rendezvous(3)
    assert store.get(1, 7, 3, ["a", "b"]) == []
    assert store.set(3, "b", b"2") == []
    assert store.set(3, "a", b"1") == [Answer(1, StoreValues(request=7, values=[b"1", b"2"]))]
    assert store.set(3, "a", b"9") == []
    assert store.get(2, 8, 3, ["a"]) == [Answer(2, StoreValues(request=8, values=[b"9"]))]


def test_a_new_generation_forgets_keys_and_requests() -> None:
    store = Rendezvous(3)
    store.set(3, "a", b"1")
    store.get(1, 7, 3, ["b"])
    store.advance(4)
    assert store.waiting == 0
    assert store.get(1, 8, 4, ["a"]) == []
    assert store.set(4, "b", b"2") == []


def test_an_old_generation_does_not_come_back() -> None:
    store = Rendezvous(3)
    store.advance(2)
    assert store.generation == 3


def test_other_generations_are_refused_and_counted() -> None:
    store = Rendezvous(3)
    assert store.set(2, "a", b"1") == []
    assert store.get(1, 7, 4, ["a"]) == []
    assert store.refused == 2
    assert store.waiting == 0


def test_a_lost_worker_is_not_answered() -> None:
    store = Rendezvous(3)
    store.get(1, 7, 3, ["a"])
    store.get(2, 8, 3, ["a"])
    store.forget(1)
    assert [answer.to for answer in store.set(3, "a", b"1")] == [2]


def test_a_generation_is_bounded() -> None:
    store = Rendezvous(3)
    store.set(3, "a", bytes(MAX_BYTES - 10))
    store.set(3, "b", bytes(100))
    assert store.refused == 1
    store.set(3, "a", b"")
    store.set(3, "b", bytes(100))
    assert store.refused == 1
