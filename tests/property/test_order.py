"""Invariant 12: the data order is a bijection, independent of world size, readers and restarts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hpresil.data import order
from hpresil.data.order import BLOCK, WINDOW, EpochOrder, Permutation, inverse, sample_index
from hpresil.data.source import expected_ids

KEYS = st.integers(0, 2**64 - 1)
SIZES = st.integers(1, 2**40)


def walked(permutation):
    """All images at once, by the permutation's own network."""
    images = permutation.scramble(np.arange(permutation.size, dtype=np.uint64))
    while (outside := images >= permutation.size).any():
        images[outside] = permutation.scramble(images[outside])
    return images


@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_a_permutation_is_a_bijection_at_every_size_up_to_4096(key):
    for size in range(1, 4097):
        seen = np.zeros(size, bool)
        seen[walked(Permutation(size, key))] = True
        assert seen.all(), f"size {size}, key {key}"


@settings(deadline=None)
@given(st.integers(1, 4096), KEYS, st.data())
def test_one_index_at_a_time_gives_what_all_at_once_give(size, key, data):
    permutation = Permutation(size, key)
    index = data.draw(st.integers(0, size - 1))
    assert permutation.forward(index) == walked(permutation)[index]


@settings(deadline=None)
@given(SIZES, KEYS, st.data())
def test_the_inverse_of_a_permutation_undoes_it_up_to_2_40(size, key, data):
    index = data.draw(st.integers(0, size - 1))
    permutation = Permutation(size, key)
    assert permutation.inverse(permutation.forward(index)) == index
    assert permutation.forward(permutation.inverse(index)) == index


@settings(deadline=None)
@given(st.integers(1, 2**62))
def test_the_grid_has_less_than_twice_as_many_cells_as_values(size):
    permutation = Permutation(size, 7)
    cells = permutation.rows * permutation.columns
    assert size <= cells < min(2 * size, size + permutation.rows) or size == cells == 1


@pytest.mark.parametrize("size", [0, -1, 1 << 63])
def test_a_size_without_a_permutation_is_refused(size):
    with pytest.raises(ValueError, match="between 1 and 2"):
        Permutation(size, 0)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 12), st.integers(1, 40), st.integers(0, 99), st.integers(0, 3))
def test_an_epoch_visits_every_sample_once_whatever_blocks_and_windows(size, block, window, seed, epoch):
    shuffled = EpochOrder(size, seed, epoch, block=block, window=window)
    samples = [shuffled.sample(place) for place in range(size)]
    assert sorted(samples) == list(range(size))
    assert [shuffled.place(sample) for sample in samples] == list(range(size))


@pytest.mark.parametrize("size", [1, 2, BLOCK - 1, BLOCK, BLOCK + 1, WINDOW, WINDOW + 1, WINDOW + BLOCK + 77])
def test_each_of_two_epochs_visits_every_sample_once_with_the_real_blocks(size):
    for epoch in range(2):
        seen = {sample_index(epoch * size + place, size, seed=3) for place in range(size)}
        assert seen == set(range(size)), f"size {size}, epoch {epoch}"


@settings(deadline=None)
@given(SIZES, st.integers(-5, 2**70), st.integers(0, 1000), st.data())
def test_the_position_of_a_sample_is_where_it_is_consumed(size, seed, epoch, data):
    sample = data.draw(st.integers(0, size - 1))
    position = inverse(sample, size, seed, epoch=epoch)
    assert position // size == epoch
    assert sample_index(position, size, seed) == sample


def test_any_position_can_be_resumed_at_without_the_ones_before(monkeypatch):
    calls = []
    scramble = Permutation.scramble
    monkeypatch.setattr(
        Permutation, "scramble", lambda self, cell: calls.append(cell) or scramble(self, cell)
    )
    size = 10**11 + 7
    for position in (0, size - 1, size, 10**15 + 12345):
        order._epoch_order.cache_clear()
        calls.clear()
        sample_index(position, size, seed=1)
        assert len(calls) <= 8, f"position {position} took {len(calls)} passes"


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), st.integers(1, 8), st.integers(1, 5000), st.integers(0, 9))
def test_the_slots_of_a_step_together_consume_the_next_positions(
    slots, microbatches, microbatch_size, size, seed
):
    what = {"slots": slots, "microbatches": microbatches, "microbatch_size": microbatch_size, "seed": seed}
    consumed = [
        sample
        for step, slot in itertools.product(range(3), range(slots))
        for sample in expected_ids(size, step=step, slot=slot, **what)
    ]
    assert consumed == [sample_index(position, size, seed) for position in range(len(consumed))]


def test_a_window_of_positions_reads_from_few_blocks():
    size = 40 * WINDOW + 321
    for begin in (0, 7 * WINDOW, 39 * WINDOW):
        blocks = {sample_index(begin + place, size, seed=5) // BLOCK for place in range(0, WINDOW, 5)}
        assert len(blocks) <= WINDOW // BLOCK + 2


def test_epochs_and_seeds_have_orders_of_their_own():
    size, count = 5000, 500
    streams = [
        [sample_index(epoch * size + p, size, seed) for p in range(count)]
        for epoch in (0, 1)
        for seed in (0, 1)
    ]
    for one, other in itertools.combinations(streams, 2):
        assert sum(a == b for a, b in zip(one, other, strict=True)) < 5


@pytest.mark.parametrize("size", [2, 3, 5, 10, 100, 1000])
def test_every_sample_is_equally_likely_to_come_first_second_or_last(size):
    keys = np.random.default_rng(11).integers(0, 2**63, 4000)
    for place in {0, 1, size - 1}:
        counts = np.zeros(size)
        for key in keys:
            counts[Permutation(size, int(key)).forward(place)] += 1
        expected = len(keys) / size
        chi_squared = float(((counts - expected) ** 2 / expected).sum())
        spread = (2 * (size - 1)) ** 0.5
        assert abs(chi_squared - (size - 1)) < 5 * spread + 5, f"size {size}, place {place}: {chi_squared}"


def test_neighbours_are_not_kept_together():
    size = 4096
    followers = sum(
        int((np.diff(walked(Permutation(size, key)).astype(np.int64)) == 1).sum()) for key in range(40)
    )
    assert followers < 40 + 5 * 40**0.5  # about one a permutation by chance


@pytest.mark.parametrize(("position", "size"), [(-1, 10), (0, 0), (5, -3)])
def test_a_position_that_cannot_be_is_refused(position, size):
    with pytest.raises(ValueError, match="no sample at position"):
        sample_index(position, size, 0)


def test_a_sample_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match="no sample 10"):
        inverse(10, 10, 0)
    with pytest.raises(ValueError, match="not one of the 10 places"):
        EpochOrder(10, 0, 0).sample(10)


def test_the_order_is_pinned():
    """Records of old runs stay comparable: changing these figures changes every user's data order."""
    assert [sample_index(p, 10, 0) for p in range(12)] == [3, 9, 8, 4, 1, 2, 5, 7, 0, 6, 6, 0]
    far = [sample_index(p, 10**6, 42) for p in (0, 1, 2, 10**6 - 1, 10**6, 10**9)]
    assert far == [776903, 84518, 831597, 560501, 247590, 2614]
