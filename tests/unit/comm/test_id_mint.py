"""Ids: made ahead, one use each, none for a generation that was replaced."""

import itertools

import pytest

from hpresil.base.errors import GenerationChanged, UsageError
from hpresil.comm.id_mint import IdMint


@pytest.fixture
def mint():
    numbers = itertools.count()
    made = IdMint(lambda: bytes([next(numbers)]) * 128, ready=3)
    made.fill()
    return made


def test_ids_are_ready_and_no_two_are_equal(mint) -> None:
    assert mint.ready == 3
    taken = mint.take(1, "dp") + mint.take(1, "tp", roots=4) + mint.take(2, "dp")
    assert len(set(taken)) == 6
    assert mint.ready == 0
    mint.fill()
    assert mint.ready == 3
    assert set(mint.take(2, "tp")).isdisjoint(taken)


def test_a_communicator_gets_its_ids_once(mint) -> None:
    mint.take(1, "dp")
    with pytest.raises(UsageError, match="dp of generation 1 has its ids"):
        mint.take(1, "dp")
    mint.take(2, "dp")


def test_a_generation_that_was_replaced_gets_none(mint) -> None:
    mint.take(5, "dp")
    with pytest.raises(GenerationChanged, match="generation 4 was replaced by 5"):
        mint.take(4, "dp")
