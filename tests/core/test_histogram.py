"""Histograms: every finite value is in one bin, sums over workers are sums, and nothing runs backwards."""

from __future__ import annotations

import bisect
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.histogram import CHECKPOINT_SECONDS, GRAD_NORM, WINDOW_SECONDS, Distributions, Histogram

BOUNDS = (0.1, 1.0, 10.0)


def filled(*values: float) -> Histogram:
    """A histogram of these values."""
    made = Histogram.over(BOUNDS)
    for value in values:
        made.add(value)
    return made


def test_an_empty_one_is_all_zeros() -> None:
    """The first scrape has every series, at 0."""
    assert Histogram.over(BOUNDS).cumulative == [0, 0, 0, 0]


def test_a_value_at_a_bound_is_below_it() -> None:
    """Prometheus's `le` is "less or equal"."""
    assert filled(0.1, 1.0, 10.0).cumulative == [1, 2, 3, 3]


def test_what_is_above_all_bounds_counts_in_the_last_bin() -> None:
    """No value is lost to a bound that was chosen too low."""
    assert filled(1e9).cumulative == [0, 0, 0, 1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_left_out(value: float) -> None:
    """A sum of NaN would be NaN for good."""
    assert filled(0.5, value) == filled(0.5)


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_bins_are_those_that_prometheus_would_count(values: list[float]) -> None:
    """Cumulative counts by definition: how many values are at or below each bound."""
    made = filled(*values)

    expected = [bisect.bisect_right(sorted(values), bound) for bound in (*BOUNDS, math.inf)]
    assert made.cumulative == expected
    assert made.total == pytest.approx(sum(values))


def test_two_workers_add_up() -> None:
    """What the dead worker counted stays, and neither histogram is changed by the sum."""
    one, two = filled(0.5, 5.0), filled(0.5)

    both = one.plus(two)

    assert both == filled(0.5, 5.0, 0.5)
    assert (one, two) == (filled(0.5, 5.0), filled(0.5))


def test_histograms_of_different_figures_do_not_add_up() -> None:
    """A bug of ours, which is told as one."""
    with pytest.raises(AssertionError, match="same bounds"):
        filled().plus(Histogram.over((1.0,)))


def test_a_copy_stays_as_it_was() -> None:
    """A snapshot that is on its way must not change under the thread that encodes it."""
    loop = Distributions()
    sent = loop.copy()

    loop.window_seconds.add(0.2)
    loop.grad_norm.add(3.0)

    assert sent == Distributions()
    assert loop.plus(loop).grad_norm.total == 6.0


@pytest.mark.parametrize("bounds", [WINDOW_SECONDS, CHECKPOINT_SECONDS, GRAD_NORM])
def test_bounds_rise(bounds: tuple[float, ...]) -> None:
    """And are few: each is a series of every job."""
    assert list(bounds) == sorted(set(bounds))
    assert len(bounds) <= 13
