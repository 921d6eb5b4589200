"""Throughput: over a short span, of one worker, and never from a clock that was set back."""

from __future__ import annotations

from ampd.core.rate import SPAN_SECONDS, Rate
from tests.core.bench import snapshot


def test_nothing_is_known_of_one_snapshot() -> None:
    """A rate needs two."""
    rate = Rate()
    rate.add(1000.0, snapshot(10))

    assert rate.windows_per_second is None


def test_windows_and_samples_per_second() -> None:
    """The slope between the first and the last snapshot."""
    rate = Rate()
    rate.add(1000.0, snapshot(10))
    rate.add(1002.0, snapshot(30))

    assert (rate.windows_per_second, rate.samples_per_second) == (10.0, 320.0)


def test_an_old_pace_is_forgotten() -> None:
    """A change of precision shows within the span."""
    rate = Rate()
    for second in range(40):
        rate.add(1000.0 + second, snapshot(second))
    for second in range(int(SPAN_SECONDS) + 2):
        rate.add(1040.0 + second, snapshot(40 + 100 * second))

    assert rate.windows_per_second == 100.0


def test_a_clock_set_back_starts_anew() -> None:
    """No negative speed, and no absurd one."""
    rate = Rate()
    rate.add(1000.0, snapshot(10))
    rate.add(500.0, snapshot(20))
    assert rate.windows_per_second is None

    rate.add(501.0, snapshot(30))

    assert rate.windows_per_second == 10.0


def test_two_snapshots_at_once_give_no_rate() -> None:
    """No division by nothing."""
    rate = Rate()
    rate.add(1000.0, snapshot(10))
    rate.add(1000.0, snapshot(20))

    assert rate.windows_per_second is None
