"""The learning rate: a pure function of applied updates, exact at its corners."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.config import OptimSection
from ampd.core.schedule import learning_rate

COSINE = OptimSection(lr=1.0, warmup_windows=4, min_lr_ratio=0.1)

# (applied, total) -> rate, for COSINE: four windows of warm-up, then from 1 down to 0.1.
TABLE = [
    (0, 104, 0.25), (1, 104, 0.5), (3, 104, 1.0), (4, 104, 1.0), (29, 104, 0.1 + 0.45 * (1 + math.sqrt(0.5))),
    (54, 104, 0.55), (104, 104, 0.1), (105, 104, 0.1), (10**9, 104, 0.1),
]  # fmt: skip


@pytest.mark.parametrize(("applied", "total", "rate"), TABLE)
def test_the_rate_rises_and_falls_as_tabled(applied: int, total: int, rate: float) -> None:
    """Linear to the peak, a half cosine to the floor, and then the floor for good."""
    assert learning_rate(COSINE, applied, total) == pytest.approx(rate, rel=1e-12)


def test_without_warm_up_the_first_update_has_the_peak() -> None:
    """No warm-up means no division by it."""
    assert learning_rate(OptimSection(lr=0.5), 0, 10) == 0.5


def test_a_constant_rate_warms_up_and_stays() -> None:
    """The constant schedule has the same warm-up and then never moves."""
    optim = OptimSection(lr=0.3, schedule="constant", warmup_windows=3)

    assert [learning_rate(optim, n, 5) for n in (0, 1, 2, 3, 5, 999)] == pytest.approx(
        [0.1, 0.2, 0.3, 0.3, 0.3, 0.3]
    )


@pytest.mark.parametrize("total", [1, 4, 5])
def test_a_job_that_is_all_warm_up_ends_at_a_finite_rate(total: int) -> None:
    """A job no longer than its warm-up divides by nothing."""
    rates = [learning_rate(COSINE, applied, total) for applied in range(8)]

    assert all(0.1 <= rate <= 1.0 for rate in rates)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])


@given(
    lr=st.floats(1e-8, 100), warmup=st.integers(0, 50), ratio=st.floats(0, 1), total=st.integers(1, 200),
    applied=st.integers(0, 300),
)  # fmt: skip
def test_the_rate_keeps_its_bounds(lr: float, warmup: int, ratio: float, total: int, applied: int) -> None:
    """Never above the peak, never zero in warm-up, never under the floor after it."""
    optim = OptimSection(lr=lr, warmup_windows=warmup, min_lr_ratio=ratio)

    rate = learning_rate(optim, applied, total)

    lowest = lr / warmup if applied < warmup else lr * ratio
    assert lowest * (1 - 1e-9) <= rate <= lr * (1 + 1e-9)


@given(warmup=st.integers(0, 20), total=st.integers(1, 100))
def test_the_rate_has_one_peak(warmup: int, total: int) -> None:
    """It rises to the end of the warm-up and never again."""
    optim = OptimSection(lr=1.0, warmup_windows=warmup)

    rates = [learning_rate(optim, applied, total) for applied in range(total + 2)]

    assert rates[:warmup] == sorted(rates[:warmup])
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
