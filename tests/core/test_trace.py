"""The trace: bounded, merged and not sampled, and honest about what was not finite."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from ampd.core.ledger import Counts
from ampd.core.messages import Snapshot
from ampd.core.trace import FINEST_SECONDS, MOST, Totals, Trace
from tests.core.bench import snapshot

AT = 1000.0


def seen(
    windows: int, *, loss: float | None = 2.0, norm: float | None = 1.0, scale: float | None = None
) -> Snapshot:
    """A snapshot with these figures."""
    return msgspec.structs.replace(snapshot(windows), loss=loss, grad_norm=norm, scale=scale)


def counts(windows: int, backoffs: int = 0) -> Counts:
    return Counts(
        windows=windows, scale_backoffs=backoffs, fp32_fallbacks={"scale": backoffs}, samples=32 * windows
    )


def traced(seconds: float, pace: float = 4.0) -> Trace:
    """A trace of a run of one window for each snapshot, with a dip of the scale and a spike of the norm at its middle."""
    trace, number = Trace(), int(seconds * pace)
    for step in range(number):
        is_middle = step == number // 2
        figures = seen(step, norm=50.0 if is_middle else 1.0, scale=2.0 if is_middle else 1024.0)
        trace.add(AT + step / pace, figures, counts(step, backoffs=step > number // 2))
    return trace


def test_a_short_run_is_kept_as_finely_as_it_came() -> None:
    """A minute has a point for each half second."""
    trace = traced(60)

    assert trace.seconds == FINEST_SECONDS
    assert 110 <= len(trace.points) <= 125


@given(st.integers(60, 40_000))
def test_a_trace_is_bounded_however_long_the_run(seconds: int) -> None:
    """Hours fit in a few hundred points, and there are always enough to draw."""
    trace = traced(seconds, pace=0.5)

    assert min(30, seconds // 2) <= len(trace.points) <= MOST


def test_what_was_short_survives_hours() -> None:
    """A dip of the scale and a spike of the norm of a quarter of a second are there after three hours."""
    trace = traced(3 * 3600, pace=1)

    assert min(point.least_scale or 0 for point in trace.points) == 2.0
    assert max(point.grad_norm or 0 for point in trace.points) == 50.0
    assert sum(point.happened.backoffs for point in trace.points) == 1


def test_counts_are_summed_and_not_sampled() -> None:
    """Every window and back-off is in one point, however often points were merged."""
    trace = traced(3600)

    assert sum(point.happened.windows for point in trace.points) == 3600 * 4 - 1
    assert trace.points[-1].window == 3600 * 4 - 1


def test_points_follow_each_other_without_holes() -> None:
    """Each begins where the one before ends, so rates are over all of the time."""
    points = traced(1000).points

    assert [a.end for a in points[:-1]] == [b.begin for b in points[1:]]


def test_a_loss_is_averaged_over_what_was_finite() -> None:
    """One that is not finite is left out, and not taken for 0."""
    trace = Trace()
    for step, loss in enumerate([1.0, None, 3.0, float("nan")]):
        trace.add(AT + step / 10, seen(step, loss=loss), counts(step))

    assert [point.loss for point in trace.points] == [2.0]


def test_figures_that_nobody_measured_are_gaps() -> None:
    """Without a loss scale there is no scale to draw."""
    trace = Trace()
    trace.add(AT, seen(0, loss=None, norm=float("inf")), counts(0))

    point = trace.points[0]
    assert (point.loss, point.grad_norm, point.scale, point.least_scale) == (None, None, None, None)


def test_a_clock_set_back_begins_anew() -> None:
    """Points in the future would make the line run backwards."""
    trace = traced(60)
    trace.add(AT - 500, seen(241), counts(241))

    assert [(point.begin, point.end) for point in trace.points] == [(AT - 500, AT - 500)]


def test_windows_from_before_the_trace_are_not_in_it() -> None:
    """A trace that begins late does not call what came before a burst."""
    trace = Trace()
    trace.add(AT, seen(5000), counts(5000))

    assert trace.points[0].happened == Totals()
    assert trace.rates() is None


def test_rates_are_those_of_late() -> None:
    """Windows and samples a second over the last ten seconds, whatever was before."""
    trace = Trace()
    for second in range(40):
        trace.add(AT + second, seen(0), counts(max(0, second - 20) * 3))

    assert trace.rates() == (3.0, 96.0, 0.0)


def test_two_traces_share_nothing() -> None:
    """Each view has points of its own."""
    first, second = Trace(), Trace()
    first.add(AT, seen(1), counts(1))

    assert second.points == []
