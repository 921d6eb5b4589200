"""The data order: a permutation of every size, known in O(1), that never changes from one version to the next."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.order import DataOrder

SEEDS = st.integers(min_value=0, max_value=2**31 - 1)


@given(size=st.integers(min_value=1, max_value=700), seed=SEEDS, epoch=st.integers(0, 1000))
def test_an_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    """Every sample is seen exactly once an epoch, whatever the size."""
    samples = DataOrder(size, seed).batch(epoch, 0, size)

    assert sorted(samples) == list(range(size))


@given(size=st.integers(1, 10**15), seed=SEEDS, share=st.floats(0, 1, exclude_max=True))
def test_a_sample_is_in_range_whatever_the_size(size: int, seed: int, share: float) -> None:
    """Far larger sets than memory holds have an order too: no position leads outside of them."""
    assert 0 <= DataOrder(size, seed).sample(0, int(share * size)) < size


@given(seed=SEEDS, start=st.integers(0, 90), count=st.integers(0, 10))
def test_any_stretch_is_that_of_the_whole(seed: int, start: int, count: int) -> None:
    """Asking for the middle of an epoch gives what walking there from its start would have given."""
    whole = DataOrder(100, seed).batch(5, 0, 100)

    assert DataOrder(100, seed).batch(5, start, count) == whole[start : start + count]


@given(positions=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 49)), max_size=20))
def test_what_was_asked_before_does_not_matter(positions: list[tuple[int, int]]) -> None:
    """An order has no memory that could show: one that was used gives what a fresh one gives."""
    used = DataOrder(50, 3)

    assert [used.sample(*p) for p in positions] == [DataOrder(50, 3).sample(*p) for p in positions]


def test_epochs_and_seeds_differ() -> None:
    """No two epochs of a job, and no two jobs, go through the data in the same order."""
    orders = [tuple(DataOrder(40, seed).batch(epoch, 0, 40)) for seed in range(8) for epoch in range(8)]

    assert len(set(orders)) == len(orders)
    assert tuple(range(40)) not in orders


def test_neighbours_do_not_stay_neighbours() -> None:
    """Samples that lie side by side in a file are spread over the epoch: the order is no rotation or stride."""
    samples = DataOrder(1000, 1).batch(0, 0, 1000)

    steps = [(b - a) % 1000 for a, b in pairwise(samples)]

    assert len(set(steps)) > 500


def test_each_position_meets_the_whole_range() -> None:
    """Over many epochs the first sample is drawn from everywhere, not from a favoured corner."""
    first = [DataOrder(10, 1).sample(epoch, 0) for epoch in range(2000)]

    counts = [first.count(sample) for sample in range(10)]

    assert min(counts) > 100, counts  # 200 is the mean; 100 is seven standard deviations below it


def test_the_order_never_changes() -> None:
    """A job that is resumed under a later version goes on in the same order: these values hold for good."""
    assert DataOrder(10, 1).batch(0, 0, 10) == [3, 5, 1, 4, 9, 6, 2, 0, 7, 8]
    assert DataOrder(10, 1).batch(1, 0, 10) == [1, 4, 2, 3, 7, 8, 9, 6, 0, 5]
    assert DataOrder(1_000_003, 7).batch(3, 500_000, 6) == [223817, 299439, 575133, 668007, 107689, 795286]
    assert DataOrder(10**12, 7).sample(0, 10**12 - 1) == 283615149483


def test_one_sample_is_an_order() -> None:
    """A set of one sample gives that sample."""
    assert DataOrder(1, 99).batch(0, 0, 1) == [0]


@pytest.mark.parametrize("size", [0, -1])
def test_an_empty_set_has_no_order(size: int) -> None:
    """A size below one is refused where it is given."""
    with pytest.raises(ValueError, match=f"size={size}: an order needs at least one sample"):
        DataOrder(size, 1)
