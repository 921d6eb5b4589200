"""Losses as sums that only grow, from which the mean of any period follows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.histogram import Distributions
from ampd.core.losses import Losses
from ampd.telemetry.readings import read
from tests.telemetry import views


def summed(*losses: float) -> Losses:
    """What these add up to."""
    made = Losses()
    for loss in losses:
        made.add(loss)
    return made


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
)
def test_the_mean_between_two_moments_is_exact(before: list[float], since: list[float]) -> None:
    """Differences of sums over differences of counts, whatever the signs; and no sum ever falls."""
    then, now = summed(*before), summed(*before, *since)

    grown = (now.positive - then.positive, now.negative - then.negative)

    assert min(grown) >= 0
    mean = (grown[0] - grown[1]) / (now.windows - then.windows)
    assert mean == pytest.approx(sum(since) / len(since), abs=1e-3)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_in_no_sum(loss: float) -> None:
    """A sum of NaN would be NaN for good."""
    assert summed(1.0, loss) == summed(1.0)


def test_the_metrics_go_on_over_a_restart() -> None:
    """Past and present together; a copy on its way does not change."""
    past, loop = Distributions(losses=summed(2.0, -1.0)), Distributions(losses=summed(3.0))
    now = views.snapshot(distributions=loop.copy())
    loop.losses.add(100.0)

    readings = read(views.running(past_distributions=past, snapshots={0: now}))

    assert readings["ampd_loss_sum_total"] == {"positive": 5.0, "negative": 1.0}
    assert readings["ampd_loss_windows_total"] == 3
